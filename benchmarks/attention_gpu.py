"""Block-sparse attention on a GPU: is it exact, and what does it save beside the fastest dense attention there?

    python benchmarks/attention_gpu.py [--cases NAME ...] [--out FOLDER]     # exits with 2 where there is no CUDA
    python benchmarks/attention_gpu.py --rehearse                            # toy sizes on the CPU: does it work?

First every kernel is held against float64, and nothing is timed unless all agree. Then attention is timed at the sizes
of real models, every sparsity in turn with dense attention in the same loop, and medians are compared. Kept blocks are
drawn at random, the same number in every row, which leaves caches the least to share; text queries and text keys are
kept whole, as the method keeps them. Writes attention_DEVICE.json and .md into benchmarks/results.

Not yet run on a GPU: written, rehearsed on a CPU, and waiting for one.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from outpace.evaluation.environment import environment
from outpace.kernels.attention import (
    DENSE,
    MASS,
    SPARSE,
    BlockIndex,
    block_mass,
    dense_attention,
    sparse_attention,
)

ROOT = Path(__file__).resolve().parent.parent
SPARSITIES = (0.0, 0.5, 0.8, 0.9)
BLOCKS = ((64, 64), (128, 64), (128, 128))
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Largest error of an output, relative to its norm."""
TOLERANCES_OF_SUMS = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 5e-3}
"""Largest error of an LSE, and of a block's mass per query in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """The self-attention of one model at one size, for one sample."""

    name: str
    tokens: int
    heads: int
    text_first: int = 0
    """Text tokens before those of the picture."""
    text_last: int = 0
    """Text tokens behind them."""
    width: int = 128


CASES = (
    Case(name="FLUX 2048 x 2048", tokens=16_896, heads=24, text_first=512),
    Case(name="Wan 2.1 1.3B 480p", tokens=32_760, heads=12),
    Case(name="Wan 2.1 1.3B 720p", tokens=75_600, heads=12),
    Case(name="Wan 2.1 14B 480p", tokens=32_760, heads=40),
    Case(name="Wan 2.1 14B 720p", tokens=75_600, heads=40),
    Case(name="HunyuanVideo 720p", tokens=119_056, heads=24, text_last=256),
)
REHEARSAL = (
    Case(name="toy picture", tokens=1100, heads=2, text_first=128, width=64),
    Case(name="toy clip", tokens=1000, heads=2, width=64),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Where and how all is run."""

    device: str
    backend: str
    dtype: torch.dtype
    repeats: int

    def milliseconds(self, runs: dict[Any, Callable[[], object]]) -> dict[Any, list[float]]:
        """Times of every run, taken in turns, after one turn that is not counted (compilation, caches)."""
        times: dict[Any, list[float]] = {name: [] for name in runs}
        for turn in range(self.repeats + 1):
            for name, run in runs.items():
                taken = self._one(run)
                if turn:
                    times[name].append(taken)
        return times

    def _one(self, run: Callable[[], object]) -> float:
        if self.device == "cpu":
            started = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - started)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def inputs(case: Case, bench: Bench, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as diffusers lays them out: (batch, tokens, heads, width) in memory."""
    torch.manual_seed(0)
    shape = (1, case.tokens, case.heads, case.width)
    return tuple(torch.randn(shape, device=bench.device, dtype=dtype).transpose(1, 2) for _ in range(3))  # pyright: ignore[reportReturnType]


def kept_blocks(case: Case, blocks: tuple[int, int], sparsity: float, device: str) -> BlockIndex:
    """The same number of random blocks in every row, beside text, which is kept whole."""
    rows, columns = (-(-case.tokens // block) for block in blocks)
    keep = max(1, round((1 - sparsity) * columns))
    mask = torch.zeros(1, case.heads, rows, columns, dtype=torch.bool, device=device)
    for head in range(case.heads):  # one at a time: the random numbers of all of them would fill gigabytes
        order = torch.rand(rows, columns, device=device).topk(keep, dim=-1).indices
        mask[0, head].scatter_(-1, order, True)
    for dim, block in ((2, blocks[0]), (3, blocks[1])):
        if case.text_first:
            mask.narrow(dim, 0, -(-case.text_first // block)).fill_(True)
        if case.text_last:
            first = (case.tokens - case.text_last) // block
            mask.narrow(dim, first, mask.shape[dim] - first).fill_(True)
    sizes = {"queries": case.tokens, "keys": case.tokens, "query_block": blocks[0], "key_block": blocks[1]}
    return BlockIndex.from_mask(mask, **sizes)


def errors(case: Case, blocks: tuple[int, int], sparsity: float, dtype: torch.dtype, bench: Bench) -> dict[str, Any]:
    """Errors of output, LSE and mass against float64, on the first, a middle and the last row of blocks of two heads.

    Float64 scores of one row of blocks at a time: all of them would not fit anywhere.
    """
    q, k, v = inputs(case, bench, dtype)
    index = kept_blocks(case, blocks, sparsity, bench.device)
    out, lse = sparse_attention(q, k, v, index, return_lse=True, backend=bench.backend)
    _, dense_lse = dense_attention(q, k, v, return_lse=True)
    mass = block_mass(q, k, dense_lse, query_block=blocks[0], key_block=blocks[1], backend=bench.backend)
    worst = {"output": 0.0, "LSE": 0.0, "mass": 0.0}
    column_of_key = torch.arange(case.tokens, device=bench.device) // blocks[1]
    for head in {0, case.heads - 1}:
        pointers = index.indptr[0, head].tolist()
        for row in {0, index.rows // 2, index.rows - 1}:
            part = slice(row * blocks[0], (row + 1) * blocks[0])
            scores = q[0, head, part].double() @ k[0, head].double().T * case.width**-0.5
            kept = torch.isin(column_of_key, index.indices[pointers[row] : pointers[row + 1]])
            truth_lse = scores.masked_fill(~kept, -torch.inf).logsumexp(-1)
            weights = (scores - truth_lse[:, None]).exp() * kept
            truth = weights @ v[0, head].double()
            shares = (scores - scores.logsumexp(-1, keepdim=True)).exp().sum(0)
            truth_mass = torch.zeros(index.columns, dtype=torch.float64, device=bench.device)
            truth_mass.index_add_(0, column_of_key, shares)
            found = {
                "output": (out[0, head, part].double() - truth).norm() / truth.norm(),
                "LSE": (lse[0, head, part].double() - truth_lse).abs().max(),
                "mass": (mass[0, head, row].double() - truth_mass).abs().max() / blocks[0],
            }
            worst = {name: max(worst[name], float(error)) for name, error in found.items()}
    agree = worst["output"] <= TOLERANCES[dtype] and max(worst["LSE"], worst["mass"]) <= TOLERANCES_OF_SUMS[dtype]
    return {
        "case": case.name,
        "tokens": case.tokens,
        "width": case.width,
        "dtype": str(dtype).removeprefix("torch."),
        "blocks": list(blocks),
        "sparsity": sparsity,
        **worst,
        "agrees": agree,
    }


def check(cases: tuple[Case, ...], bench: Bench) -> list[dict[str, Any]]:
    """Errors at small sizes for every type, width and block, and at the sizes that are timed."""
    found = []
    for dtype in TOLERANCES:
        for width in (32, 64, 96, 128):
            for blocks in (*BLOCKS, (32, 32)):
                small = Case(name="small", tokens=1000, heads=2, text_last=77, width=width)
                found.append(errors(small, blocks, 0.6, dtype, bench))
    for case in cases:
        found.append(errors(case, BLOCKS[0], 0.8, bench.dtype, bench))
        found.append(errors(case, BLOCKS[-1], 0.8, bench.dtype, bench))
    return found


def fastest_dense(q: Tensor, k: Tensor, v: Tensor, bench: Bench) -> dict[str, float]:
    """Milliseconds of every dense attention that runs here, fastest first."""
    names = [name for name, objection in DENSE.explain(q, k, v, False) if objection is None and name != "chunked"]
    runs = {name: lambda name=name: dense_attention(q, k, v, backend=name) for name in names}
    times = bench.milliseconds(runs)
    return dict(sorted(((name, statistics.median(taken)) for name, taken in times.items()), key=lambda item: item[1]))


def time_case(case: Case, bench: Bench) -> dict[str, Any]:
    """Dense and sparse attention at every sparsity and block size, and the mass pass."""
    q, k, v = inputs(case, bench, bench.dtype)
    dense = fastest_dense(q, k, v, bench)
    best = next(iter(dense))
    _, lse = dense_attention(q, k, v, return_lse=True)
    operations = 4 * case.tokens**2 * case.heads * case.width
    lines = []
    for sparsity in SPARSITIES:
        indices = {blocks: kept_blocks(case, blocks, sparsity, bench.device) for blocks in BLOCKS}
        runs: dict[Any, Callable[[], object]] = {"dense": lambda: dense_attention(q, k, v, backend=best)}
        for blocks, index in indices.items():
            runs[blocks] = lambda index=index: sparse_attention(q, k, v, index, backend=bench.backend)
        times = bench.milliseconds(runs)
        for blocks, index in indices.items():
            took = statistics.median(times[blocks])
            density = float(index.density.mean())
            ratios = sorted(d / s for d, s in zip(times["dense"], times[blocks], strict=True))
            lines.append(
                {
                    "blocks": list(blocks),
                    "sparsity": sparsity,
                    "density": density,
                    "milliseconds": took,
                    "dense_milliseconds": statistics.median(times["dense"]),
                    "speedup": statistics.median(ratios),
                    "speedup_range": [ratios[0], ratios[-1]],
                    "tflops": operations * density / took / 1e9,
                    "index_megabytes": index.nbytes / 1e6,
                }
            )
    passes = {
        blocks: lambda blocks=blocks: block_mass(
            q, k, lse, query_block=blocks[0], key_block=blocks[1], backend=bench.backend
        )
        for blocks in BLOCKS
    }
    mass = {blocks: statistics.median(taken) for blocks, taken in bench.milliseconds(passes).items()}
    return {
        "case": asdict(case),
        "dense_milliseconds": dense,
        "dense_tflops": operations / dense[best] / 1e9,
        "sparse": lines,
        "text_rows": text_rows(q, k, v, case, bench),
        "mass": [
            {"blocks": list(b), "milliseconds": m, "of_dense": m / dense[best], "tflops": operations / 2 / m / 1e9}
            for b, m in mass.items()
        ],
    }


def text_rows(q: Tensor, k: Tensor, v: Tensor, case: Case, bench: Bench) -> dict[str, float]:
    """Milliseconds at sparsity 0.8 with rows of text queries given to dense attention, and with them in the kernel."""
    if bench.backend != "triton" or not (case.text_first or case.text_last):
        return {}
    from outpace.kernels.attention import triton

    index, scale = kept_blocks(case, BLOCKS[0], 0.8, bench.device), case.width**-0.5
    runs = {
        name: lambda split=split: triton.sparse(q, k, v, index, scale=scale, return_lse=False, dense_ends=split)
        for name, split in (("dense", True), ("kernel", False))
    }
    return {name: statistics.median(taken) for name, taken in bench.milliseconds(runs).items()}


def product_rate(bench: Bench, size: int) -> float:
    """TFLOP/s of a square matrix product: the roof that attention is held against (it is bound by arithmetic)."""
    a, b = (torch.randn(size, size, device=bench.device, dtype=bench.dtype) for _ in range(2))
    return 2 * size**3 / statistics.median(bench.milliseconds({"product": lambda: a @ b})["product"]) / 1e9


def markdown(report: dict[str, Any]) -> str:
    """The tables, with everything needed to read them."""
    where = report["environment"]
    lines = [
        f"# Block-sparse attention on {where['device']}",
        "",
        f"{report['dtype']}, torch {where['torch']}, triton {where.get('triton', 'none')}, {report['made']}; medians "
        f"of {report['repeats']} interleaved runs, one sample, randomly drawn blocks. A matrix product of "
        f"{' x '.join(3 * [str(report['product_size'])])} reaches {report['product_tflops']:.3g} TFLOP/s here, "
        "the roof. Command: "
        f"`{report['command']}`.",
        "",
        f"Against float64: {len(report['errors'])} checks, largest error of an output "
        + ", ".join(f"{worst:.1e} in {dtype}" for dtype, worst in report["largest_errors"].items())
        + ".",
    ]
    for timed in report["cases"]:
        case, dense = timed["case"], timed["dense_milliseconds"]
        every = ", ".join(f"{name} {taken:.2f} ms" for name, taken in dense.items())
        lines += [
            "",
            f"## {case['name']}: {case['tokens']} tokens, {case['heads']} x {case['width']}",
            "",
            f"Dense: {every}; the fastest at {timed['dense_tflops']:.3g} TFLOP/s.",
            "",
            "| blocks | sparsity | kept | ms | dense ms | speed-up | ideal | TFLOP/s | of the roof | index MB |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {line['blocks'][0]} x {line['blocks'][1]} | {line['sparsity']} | {line['density']:.3f} "
            f"| {line['milliseconds']:.2f} | {line['dense_milliseconds']:.2f} "
            f"| {line['speedup']:.2f} ({line['speedup_range'][0]:.2f} to {line['speedup_range'][1]:.2f}) "
            f"| {1 / line['density']:.2f} | {line['tflops']:.3g} | {line['tflops'] / report['product_tflops']:.0%} "
            f"| {line['index_megabytes']:.1f} |"
            for line in timed["sparse"]
        ]
        lines += ["", "| mass of blocks | ms | of dense | TFLOP/s |", "| --- | ---: | ---: | ---: |"]
        lines += [
            f"| {line['blocks'][0]} x {line['blocks'][1]} | {line['milliseconds']:.2f} | {line['of_dense']:.2f} "
            f"| {line['tflops']:.3g} |"
            for line in timed["mass"]
        ]
        if timed["text_rows"]:
            inside, outside = timed["text_rows"]["kernel"], timed["text_rows"]["dense"]
            lines += [
                "",
                f"Rows of text queries in the kernel {inside:.2f} ms, given to dense attention {outside:.2f} ms.",
            ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on the CPU, to see that the script works")
    parser.add_argument("--cases", nargs="*", metavar="NAME", help="parts of names of cases; all where left out")
    parser.add_argument("--repeats", type=int, default=7, help="runs of every measurement")
    parser.add_argument("--out", type=Path, help="folder for the results")
    chosen = parser.parse_args()
    if not chosen.rehearse and not torch.cuda.is_available():
        print(
            "no CUDA device here: run this on a machine with one, or with --rehearse to try the script", file=sys.stderr
        )
        return 2
    if chosen.rehearse:
        bench = Bench(device="cpu", backend="torch", dtype=torch.float32, repeats=1)
    else:
        bench = Bench(device="cuda", backend="triton", dtype=torch.bfloat16, repeats=chosen.repeats)
    size = 512 if chosen.rehearse else 8192
    wanted = [name.lower() for name in chosen.cases or [""]]
    every = REHEARSAL if chosen.rehearse else CASES
    cases = tuple(case for case in every if any(name in case.name.lower() for name in wanted))
    with torch.no_grad():
        found = check(cases, bench)
        wrong = [error for error in found if not error["agrees"]]
        for error in wrong:
            print(f"wrong: {json.dumps(error)}", file=sys.stderr)
        if wrong:
            print(f"{len(wrong)} of {len(found)} checks against float64 failed: nothing was timed", file=sys.stderr)
            return 1
        report: dict[str, Any] = {
            "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "command": f"python benchmarks/attention_gpu.py {' '.join(sys.argv[1:])}".strip(),
            "environment": environment(bench.device),
            "backends": {operation.name: operation.last for operation in (SPARSE, MASS, DENSE)},
            "dtype": str(bench.dtype).removeprefix("torch."),
            "repeats": bench.repeats,
            "product_size": size,
            "product_tflops": product_rate(bench, size),
            "errors": found,
            "largest_errors": {
                dtype: max(error["output"] for error in found if error["dtype"] == dtype)
                for dtype in sorted({error["dtype"] for error in found})
            },
            "cases": [time_case(case, bench) for case in cases],
        }
    folder = chosen.out or (ROOT / "out" / "bench" if chosen.rehearse else ROOT / "benchmarks" / "results")
    folder.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"[^a-z0-9]+", "-", report["environment"]["device"].lower()).strip("-")
    stem = folder / f"attention_{device}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))
    print(f"{stem}.json, {stem}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
