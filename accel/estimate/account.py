"""What a run of a model costs, part by part, what a forecast step still runs, and what forecasting keeps in memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from .words import count, flops, memory, percent, row, run_in_words


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One part of one stack of blocks, or of what is outside of them."""

    stack: str
    part: str
    flops: int
    """Of one call for one sample."""
    parameters: int
    """Numbers in its state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceiling:
    """The most that forecasting can gain where a share of the steps is computed: FLOPs of all over FLOPs that run."""

    computed: float
    """Share of the steps."""
    planned: float
    """Speed-up where a forecast step runs no block (gate="plan", fixed intervals)."""
    probed: float
    """Speed-up where a forecast step runs the first block, for a gate that looks at it ("budget", "paper")."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What one setting of GatedTaylor remembers of one sample."""

    setting: str
    tensors: int
    """At most, over all calls of a step."""
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """FLOPs, parameters, ceilings and memory of a run for one sample. `summary()` says it in words.

    FLOPs are those of products, convolutions and attention, a multiplication and an addition one each, as torch counts
    them; norms, activations and the forecast's own sums of a few tensors are not in them.
    """

    model: str
    transformer: str
    height: int
    width: int
    frames: int | None
    """None for pictures."""
    steps: int
    calls: int
    """Calls of the denoiser a step: 2 with guidance, which some pipelines batch into one."""
    tokens: int
    """Tokens that become the picture."""
    text_tokens: int
    dtype: str
    """Of weights and of what is remembered."""
    pieces: tuple[Piece, ...]
    """Every stack of blocks and what is outside of them, by part; of one call."""
    parameters: int
    """Of one denoiser, saved tables of positions counted."""
    weights_bytes: int
    """Of every denoiser of the pipeline."""
    blocks: int
    """Blocks of one denoiser."""
    flops_per_call: int
    flops_per_step: int
    flops_total: int
    forecast_flops: int
    """Of one call that is forecast without a block: what is outside the blocks and does not work for them alone."""
    first_block_flops: int
    """Of the first block, which a gate may look at; everything outside the blocks then runs."""
    constant_flops: int
    """Of one call: what only sees the prompt or reference pictures, and ExactReuse computes once a run."""
    constant_outside_flops: int
    """Of that, what is outside the blocks and runs in a forecast call, too."""
    ceilings: tuple[Ceiling, ...]
    kept: tuple[Kept, ...]
    notes: tuple[str, ...] = ()
    """What had to be assumed."""

    def to_dict(self) -> dict[str, Any]:
        """Every field, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Account:
        """What `to_dict` gave. Raises: TypeError, KeyError where it is something else."""
        parts = {"pieces": Piece, "ceilings": Ceiling, "kept": Kept}
        told = {key: tuple(cls(**one) for one in data[key]) for key, cls in parts.items()}
        return Account(**{**data, **told, "notes": tuple(data["notes"])})

    def summary(self) -> str:
        """The account as text."""
        return tell_account(self)


def tell_account(a: Account) -> str:
    """What is made and what it costs, a table of its parts, ceilings, and what is remembered."""
    made = run_in_words(
        a.model, a.transformer, width=a.width, height=a.height, frames=a.frames, steps=a.steps, calls=a.calls
    )
    told = [
        ("tokens", f"{a.tokens:,}, and {a.text_tokens:,} of text" if a.text_tokens else f"{a.tokens:,}"),
        ("weights", f"{count(a.parameters)} parameters a denoiser, {memory(a.weights_bytes)} in {a.dtype}"),
        ("FLOPs", f"{flops(a.flops_per_call)} a call, {flops(a.flops_per_step)} a step, {flops(a.flops_total)} a run"),
    ]
    lines = [made, *(row(label, said) for label, said in told), ""]
    lines.append(f"{'one call':<44}{'FLOPs':>12}{'share':>9}{'parameters':>16}{'share':>9}")
    for stack in dict.fromkeys(piece.stack for piece in a.pieces):
        lines.append(stack)
        lines += [
            f"  {piece.part:<42}{flops(piece.flops):>12}{percent(piece.flops / a.flops_per_call):>9}"
            f"{count(piece.parameters):>16}{percent(piece.parameters / a.parameters):>9}"
            for piece in a.pieces
            if piece.stack == stack
        ]
    lines += ["", f"{'at most, in FLOPs':<20}{'forecast without a block':>26}{'with the first block':>24}"]
    for ceiling in a.ceilings:
        share = (
            "every step" if ceiling.computed == 1 else f"{Fraction(ceiling.computed).limit_denominator(100)} of them"
        )
        lines.append(f"{share + ' computed':<20}{ceiling.planned:>25.2f}x{ceiling.probed:>23.2f}x")
    if a.constant_flops:
        said = f"{flops(a.constant_flops)} a call ({100 * a.constant_flops / a.flops_per_call:.2f} %)"
        if a.constant_outside_flops:
            said += f", {percent(a.constant_outside_flops / a.forecast_flops)} of one that is forecast without a block"
        lines += ["", row("unchanging", f"{said}: given the same at every step, ExactReuse computes it once a run")]
    lines += ["", "remembered between steps, for one sample"]
    lines += [f"{kept.setting:<32}{kept.tensors:>3} tensors, {memory(kept.bytes)}" for kept in a.kept]
    return "\n".join([*lines, *(row("note", note) for note in a.notes)])
