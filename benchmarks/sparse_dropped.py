"""Whether it pays to put back what sparse attention leaves out: recorded attention of the pocket `wan-long`.

    make bench-sparse-dropped     # or: python benchmarks/sparse_dropped.py [--prompts COUNT]

Queries, keys and values of a plain run are recorded at a step early in it, where blocks are chosen, and at later ones,
and attended to anew at each: sparsely, and with the dropped blocks put back in several ways. The error is that of a
layer's attention, relative L2 over its heads, root mean square over layers. The way that helps most there is then tried
in whole runs of one prompt. Writes docs/results_sparse_dropped.md.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks.by_prompt import asked, known
from outpace.accel import AdaSpa, accelerate
from outpace.accel.attention import AttentionEngine
from outpace.accel.attention.layout import tile_order
from outpace.accel.attention.redirect import Attended
from outpace.accel.attention.selection import prefix_rows
from outpace.accel.attention.state import Call, Kept
from outpace.accel.part import Part, Shared
from outpace.evaluation.atomic import write_json
from outpace.evaluation.environment import environment
from outpace.files import write_text
from outpace.kernels.attention import sparse_attention
from outpace.pipelines import POCKETS, load_pocket

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "sparse_dropped.json"
PAGE = ROOT / "docs" / "results_sparse_dropped.md"
POCKET, STEPS, PROMPTS, FIRST_SEED = "wan-long", 12, 1, 700
GRID, TOKENS = (17, 16, 16), 4352
LOOKS = (1, 2, 4, 7, 11)
"""Steps that are looked at, from 0; blocks are chosen at the first."""
RECALLS = (0.8, 0.95, 0.99)
ROWS, COLUMNS = 128, 64
SEARCHES = (0.1, 0.2)
"""When the blocks of whole runs are chosen."""

WAYS = {
    "dropped": "nothing is put back",
    "pooled": "every dropped block as one key and value, the means of its own, counted once for each key",
    "weighed": "the same, each counted for what its keys held at the search, by block of queries",
    "kept output": "what the dropped blocks added to the output at the search, query by query",
    "kept part": "the dropped blocks' own output at the search, weighed by what they held of each query there",
}


class Recorder(TorchFunctionMode):
    """Keeps what self-attention is asked while it is entered: by layer, in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            attended = Attended(*args, **kwargs)
            if attended.query.shape[-2] == attended.key.shape[-2] == TOKENS:
                self.calls.append((attended.query, attended.key, attended.value))
        return func(*args, **kwargs)


def recorded(pipe: Any, prompt: str, seed: int, call: dict[str, Any]) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
    """At every look, the queries, keys and values of every layer, of the first branch of the guidance."""
    layers, found = len(pipe.transformer.blocks), []
    forward, calls = pipe.transformer.forward, iter(range(1 << 30))

    def look(*args: Any, **kwargs: Any) -> Any:
        number = next(calls)
        if number % 2 or number // 2 not in LOOKS:
            return forward(*args, **kwargs)
        with Recorder() as recorder:
            out = forward(*args, **kwargs)
        found.append([tuple(x.clone() for x in one) for one in recorder.calls[:layers]])
        return out

    pipe.transformer.forward = look
    try:
        generator = torch.Generator().manual_seed(seed)
        pipe(prompt, num_inference_steps=STEPS, generator=generator, output_type="latent", **call)
    finally:
        del pipe.transformer.forward
    return found


@dataclass(frozen=True, slots=True)
class Blocks:
    """One head's attention by blocks of keys: C of them, N queries, D width."""

    held: Tensor
    """Sum of the weights of each block, not divided: (N, C)."""
    gives: Tensor
    """Weights times values of each block: (N, C, D)."""
    pooled: Tensor
    """Weight of each block's mean key, counted once a key: (N, C)."""
    means: Tensor
    """Mean values: (C, D)."""

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor) -> Blocks:
        """Of queries, keys and values (N, D) in the order of the tiles."""
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        most = scores.amax(1, keepdim=True)
        weights = scores.sub_(most).exp_().view(len(q), -1, COLUMNS)
        keys, values = (x.view(-1, COLUMNS, x.shape[-1]) for x in (k, v))
        gives = torch.stack([weights[:, c] @ values[c] for c in range(len(values))], dim=1)
        pooled = ((q * q.shape[-1] ** -0.5) @ keys.mean(1).mT - most).exp_() * COLUMNS
        return cls(weights.sum(-1), gives, pooled, values.mean(1))

    def part(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (N, 1) and output (N, D), not divided, of the blocks in `keep` (N, C)."""
        return (self.held * keep).sum(1, keepdim=True), (self.gives * keep[..., None]).sum(1)


def outputs(now: Blocks, then: Blocks, keep: Tensor) -> dict[str, Tensor]:
    """The output (N, D) in every way. `keep` (N, C) are the blocks that each query keeps, `then` is at the search."""
    kept, out = now.part(keep)
    held, gave = then.part(keep)
    gone, rest = then.part(~keep)
    sparse, share = out / kept, gone / (held + gone)
    pooled = now.pooled * ~keep
    # By block of queries, as a search knows it: what a dropped block held beside all that was kept.
    by_row = (then.held / held * ~keep).view(-1, ROWS, then.held.shape[1]).mean(1).repeat_interleave(ROWS, 0) * kept
    return {
        "dropped": sparse,
        "pooled": (out + pooled @ now.means) / (kept + pooled.sum(1, keepdim=True)),
        "weighed": (out + by_row @ now.means) / (kept + by_row.sum(1, keepdim=True)),
        "kept output": sparse + (gave + rest) / (held + gone) - gave / held,
        "kept part": (1 - share) * sparse + share * torch.where(gone > 0, rest / gone.clamp_min(1e-30), 0.0),
    }


def errors(looks: list[list[tuple[Tensor, Tensor, Tensor]]]) -> Iterator[tuple[float, int, str, int, float]]:
    """(recall, look, way, layer, relative squared error of its attention)."""
    order = tile_order(GRID, ROWS)
    always = torch.zeros(TOKENS // ROWS, TOKENS // COLUMNS, dtype=torch.bool)
    for layer in range(len(looks[0])):
        squares: dict[tuple[float, int, str], float] = defaultdict(float)
        size: dict[int, float] = defaultdict(float)
        for head in range(looks[0][layer][0].shape[1]):
            then = None
            for at, look in enumerate(looks):
                q, k, v = (x[0, head][order].float() for x in look[layer])
                now = Blocks.of(q, k, v)
                then = now if then is None else then
                everything, whole = now.part(torch.ones_like(now.held, dtype=torch.bool))
                dense = whole / everything
                size[at] += float(dense.square().sum())
                share = (then.held / then.held.sum(1, keepdim=True)).view(-1, ROWS, then.held.shape[1]).mean(1)
                for recall in RECALLS:
                    keep = prefix_rows(share[None, None], recall, always)[0, 0].repeat_interleave(ROWS, 0)
                    for way, out in outputs(now, then, keep).items():
                        squares[recall, at, way] += float((out - dense).square().sum())
        for (recall, at, way), value in squares.items():
            yield recall, at, way, layer, value / size[at]


class KeepingOutput(AttentionEngine):
    """Sparse attention that adds what the dropped blocks added to the output at the search."""

    def start(self) -> None:
        super().start()
        self._rests: dict[int, tuple[Kept, Tensor]] = {}

    def _search(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = super()._search(call, q, k, v)
        for place, row in enumerate(call.rows):
            kept, one = call.state.rows[row].used, slice(place, place + 1)
            if kept is not None and kept.index is not None:
                sparse = sparse_attention(q[one], k[one], v[one], kept.index, scale=call.scale)
                self._rests[id(kept)] = kept, out[one] - cast(Tensor, sparse)
        return out

    def _sparse(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = super()._sparse(call, q, k, v)
        return out + torch.cat([self._rests[id(call.state.rows[row].used)][1] for row in call.rows])


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaSpaKeepingOutput(AdaSpa):
    """`AdaSpa` with that."""

    def part(self, shared: Shared) -> Part:
        return KeepingOutput(self, shared)


def whole_runs(pipe: Any, prompt: str, call: dict[str, Any], found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """PSNR to the plain clip at every recall and time of the search, with and without; what is known is not made."""

    def make() -> np.ndarray:
        generator = torch.Generator().manual_seed(FIRST_SEED)
        given = {**call, "num_inference_steps": STEPS, "generator": generator, "output_type": "np"}
        return np.asarray(pipe(prompt, **given).frames[0], dtype=np.float64)

    plain = None
    for search in SEARCHES:
        for way, cls in (("dropped", AdaSpa), ("kept output", AdaSpaKeepingOutput)):
            if (name := f"{way} {search:g}") in found:
                continue
            plain = make() if plain is None else plain
            method = cls(recall=RECALLS[-1], searches=(search,), block=(ROWS, COLUMNS), slack=0.0, min_gain=0.0)
            with accelerate(pipe, method) as run:
                made = make()
                record = run.trace.attention
            assert record is not None
            work = record.totals()["work"]
            yield {name: {"psnr": float(-10 * np.log10(np.mean((made - plain) ** 2))), "work": work}}


def page(report: dict[str, Any]) -> str:
    """docs/results_sparse_dropped.md."""
    found, runs = report["errors"], report["runs"]
    lines = [
        "# Putting back what sparse attention leaves out",
        "",
        "Written by `python benchmarks/sparse_dropped.py`; nothing here is typed in. What follows from it: "
        "[sparse attention](sparse_attention.md).",
        "",
        f"Pocket `{POCKET}`, {report['prompts']} calibration prompt{'s' * (report['prompts'] > 1)}, {STEPS} steps; "
        f"blocks of {ROWS} x {COLUMNS} are chosen at step {LOOKS[0] + 1}. The error of a layer's attention in percent: "
        "relative L2 distance from the dense one, root mean square over layers and prompts.",
    ]
    for recall in RECALLS:
        lines += [
            "",
            f"## Recall {recall:g}",
            "",
            f"| put back | {' | '.join(f'step {look + 1}' for look in LOOKS)} |",
            f"| --- |{' ---: |' * len(LOOKS)}",
        ]
        for way, said in WAYS.items():
            cells = (f"{100 * error:.2f}" for error in found[f"{recall:g}"][way])
            lines.append(f"| {said} | {' | '.join(cells)} |")
    lines += [
        "",
        "## In whole runs",
        "",
        f"The first of the prompts, recall {RECALLS[-1]:g}, PSNR to the plain clip; the blocks chosen at another step. "
        "Work is the share of attention that is computed, without what the putting back costs: a sparse call at the "
        "search and an addition at each of the others.",
        "",
        "| chosen after | work | nothing is put back, dB | what the dropped blocks added at the search, dB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for search in SEARCHES:
        without, kept = (runs.get(f"{way} {search:g}") for way in ("dropped", "kept output"))
        if without and kept:
            step = max(1, round(search * STEPS))
            lines.append(f"| step {step} | {without['work']:.2f} | {without['psnr']:.1f} | {kept['psnr']:.1f} |")
    lines += ["", "## How it was measured", ""]
    lines += [f"- {name}: {value}" for name, value in report["environment"].items()]
    return "\n".join(lines) + "\n"


def errors_of(pipe: Any, prompts: list[str], call: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Root mean square over layers and prompts, by recall, way and look."""
    sums: dict[tuple[float, str, int], list[float]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        for recall, at, way, _, square in errors(recorded(pipe, prompt, FIRST_SEED + number, call)):
            sums[recall, way, at].append(square)
    return {
        f"{recall:g}": {
            way: [(sum(held := sums[recall, way, at]) / len(held)) ** 0.5 for at in range(len(LOOKS))] for way in WAYS
        }
        for recall in RECALLS
    }


def main() -> None:
    options = asked(__doc__.splitlines()[0], prompts=PROMPTS, result=RESULT, page=PAGE)
    torch.set_num_threads(1)
    report = known(options.result)
    pocket, pipe = POCKETS[POCKET], load_pocket(POCKET)
    pipe.set_progress_bar_config(disable=True)
    prompts = pocket.prompts(options.prompts, "calibration")

    def keep() -> None:
        report["environment"] = environment()
        write_json(options.result, report)
        write_text(options.page, page(report))

    if "errors" not in report:
        with torch.no_grad():
            report |= {"errors": errors_of(pipe, prompts, pocket.call), "prompts": len(prompts), "runs": {}}
        keep()
    for made in whole_runs(pipe, prompts[0], pocket.call, report["runs"]):
        report["runs"] |= made
        keep()


if __name__ == "__main__":
    main()
