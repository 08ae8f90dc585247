"""An estimate and an account in words."""

from __future__ import annotations

import textwrap
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .account import Account
    from .predict import Estimate


def describe(e: Estimate) -> str:
    """A few lines: what is made, what it costs, what can be gained, and the verdict."""
    together = e.sequence > e.tokens
    text = f" + {e.sequence - e.tokens:,} of text" if together else ""
    lines = [
        ("", f"{_made(e)}, on {e.device}"),
        ("tokens", f"{e.tokens:,}{text} in self-attention" if e.sequence else f"{e.tokens:,}"),
        ("weights", f"{count(e.parameters)} parameters a denoiser, {memory(e.weights_bytes)}{_room(e)}"),
        ("FLOPs", f"{flops(e.flops_per_step)} a step, {flops(e.flops_total)} in total"),
        (
            "attention",
            f"{percent(e.attention_flops_share)} of the FLOPs, {percent(e.attention_time_share)} of the time",
        ),
        ("dense run", f"{duration(e.seconds_total)}, {duration(e.seconds_per_step)} a step (roofline, denoiser alone)"),
        ("at best", f"{e.ceiling:.2f}x, if attention cost nothing"),
        ("predicted", f"{e.predicted_speedup:.2f}x, {duration(e.predicted_seconds)}, {_how(e)}"),
        ("break-even", _even(e)),
        ("index", f"{memory(e.index_bytes)} of block indices (64 x 64)"),
        ("verdict", e.verdict),
        ("rates", e.device_source),
        *(("note", note) for note in e.notes),
    ]
    return "\n".join(_row(label, said) if label else said for label, said in lines)


def tell_account(a: Account) -> str:
    """What is made and what it costs, a table of its parts, ceilings, and what is remembered."""
    told = [
        ("tokens", f"{a.tokens:,}, and {a.text_tokens:,} of text" if a.text_tokens else f"{a.tokens:,}"),
        ("weights", f"{count(a.parameters)} parameters a denoiser, {memory(a.weights_bytes)} in {a.dtype}"),
        ("FLOPs", f"{flops(a.flops_per_call)} a call, {flops(a.flops_per_step)} a step, {flops(a.flops_total)} a run"),
    ]
    lines = [_made(a), *(_row(label, said) for label, said in told), ""]
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
    lines += ["", "remembered between steps, for one sample"]
    lines += [f"{kept.setting:<32}{kept.tensors:>3} tensors, {memory(kept.bytes)}" for kept in a.kept]
    return "\n".join([*lines, *(_row("note", note) for note in a.notes)])


def _made(told: Account | Estimate) -> str:
    size = f"{told.width} x {told.height}" + (f", {told.frames} frames" if told.frames is not None else "")
    calls = "1 call" if told.calls == 1 else f"{told.calls} calls"
    return f"{told.model} ({told.transformer}), {size}, {told.steps} steps of {calls}"


def _row(label: str, said: str) -> str:
    return textwrap.fill(said, 110, initial_indent=label.ljust(12), subsequent_indent=" " * 12)


def _room(e: Estimate) -> str:
    if e.fits is None:
        return ""
    return "" if e.fits else f", more than {e.device} holds"


def _how(e: Estimate) -> str:
    searches = "1 search" if e.searches == 1 else f"{e.searches} searches"
    text = "" if abs(e.effective_sparsity - e.sparsity) < 0.005 else f" ({e.effective_sparsity:.2f} with text kept)"
    return f"at sparsity {e.sparsity:g}{text} with {e.dense_steps} of {e.steps} steps dense and {searches}"


def _even(e: Estimate) -> str:
    run = "never for the run" if e.break_even is None else f"{e.break_even:.2f} for the run with its search"
    return f"sparsity {e.kernel_break_even:.2f} for the kernel alone, {run}"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000.0, power + 1
    return f"{_three_digits(value)} {units[power]}".rstrip()


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share as "87.1 %"."""
    return f"{100 * share:.1f} %"


def count(value: float) -> str:
    """1_420_000_000 as "1.42 billion"."""
    return _scaled(value, ("", "thousand", "million", "billion"))


def memory(value: float) -> str:
    """Bytes in decimal units, as memory is sold."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def flops(value: float) -> str:
    """Operations: 6.03e17 as "603 PFLOP"."""
    return _scaled(value, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"))


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 1.0:
        return f"{_three_digits(1000 * seconds)} ms"
    if seconds < 120.0:
        return f"{_three_digits(seconds)} s"
    if seconds < 7200.0:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
