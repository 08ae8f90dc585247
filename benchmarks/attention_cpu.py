"""Block-sparse attention on one CPU core beside torch's own dense attention: speed-up, its ideal, growth with length.

    python benchmarks/attention_cpu.py [--quick] [--repetitions COUNT] [--threads 2]      # or: make bench-attention

One process, one thread, or two (--threads 2). Every repetition runs `F.scaled_dot_product_attention`, then every sparse
variant, then the mass alone and a whole search, and ratios are taken within a repetition; the medians are shown. Time
is that of the thread, not the wall, so that other processes count for little; with two threads it is the wall's.
Tensors lie as diffusers has them, (batch, tokens, heads, width) seen as (batch, heads, tokens, width). Kept blocks are
drawn at random, rows are ragged, the density is exact; random blocks have few neighbours and share nothing, which is
the least favourable case. The most favourable stands beside it: as many blocks in one run for every row. Writes
attention_cpu.json and .md case by case; those that are there already are left as they are (remove the file to begin
anew).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from outpace.evaluation.environment import environment
from outpace.kernels.attention import (
    MASS,
    SPARSE,
    BlockIndex,
    block_mass,
    dense_attention,
    searched_attention,
    sparse_attention,
)

SPARSITIES = (0.8, 0.9)
BLOCKS = ((64, 64), (128, 64), (128, 128))
NEXT = "neighbours"


@dataclass(frozen=True, slots=True)
class Case:
    """One size."""

    tokens: int
    width: int
    heads: int
    """Fewer where the sequence is long: time per head is what is compared."""
    threads: int = 1

    @property
    def name(self) -> str:
        return f"{self.tokens} tokens, width {self.width}, {self.threads} threads"


CASES = (
    *(Case(n, d, 512 // d * 4096 // n) for d in (64, 128) for n in (4096, 8192, 16384)),
    *(Case(n, 32, 4) for n in (4352, 8192)),
    *(Case(8192, d, 256 // d, threads=2) for d in (64, 128)),
    Case(8192, 32, 4, threads=2),
)
"""The shortest of width 32 is the self-attention of the pocket video model."""


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of normal numbers, strided as diffusers has them."""
    generator = torch.Generator().manual_seed(case.tokens + case.width)
    shape = (1, case.tokens, case.heads, case.width)
    q, k, v = (torch.randn(shape, generator=generator).transpose(1, 2) for _ in range(3))
    return q, k, v


def kept_blocks(case: Case, blocks: tuple[int, int], sparsity: float) -> BlockIndex:
    """Exactly this share of all blocks dropped, whichever they are."""
    rows, columns = -(-case.tokens // blocks[0]), -(-case.tokens // blocks[1])
    rank = torch.randperm(case.heads * rows * columns, generator=torch.Generator().manual_seed(1))
    kept = rank < round(len(rank) * (1 - sparsity))
    return index_of(kept.view(case.heads, rows, columns), case, blocks)


def neighbours(case: Case, blocks: tuple[int, int], sparsity: float) -> BlockIndex:
    """As many blocks, in one run for every row, near its own place."""
    rows, columns = -(-case.tokens // blocks[0]), -(-case.tokens // blocks[1])
    count = round(columns * (1 - sparsity))
    first = (torch.arange(rows) * columns // rows - count // 2).clamp(0, columns - count)[:, None]
    places = torch.arange(columns)
    kept = (places >= first) & (places < first + count)
    return index_of(kept.expand(case.heads, rows, columns), case, blocks)


def index_of(kept: Tensor, case: Case, blocks: tuple[int, int]) -> BlockIndex:
    """Of one sample. Shapes: kept (heads, rows, columns)."""
    size = {"queries": case.tokens, "keys": case.tokens, "query_block": blocks[0], "key_block": blocks[1]}
    return BlockIndex.from_mask(kept[None], **size)


def seconds(run: Callable[[], object], threads: int = 1) -> float:
    """Time of this thread; where there are several, of the clock."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def measure(case: Case, repetitions: int, blocks: tuple[tuple[int, int], ...] = BLOCKS) -> dict[str, Any]:
    """Times and paired ratios of one size."""
    torch.set_num_threads(case.threads)
    q, k, v = inputs(case)
    runs: dict[str, Callable[[], object]] = {"dense": lambda: F.scaled_dot_product_attention(q, k, v)}
    lines = []
    for shape, kept in (*((shape, "") for shape in blocks), *(((128, 64), NEXT) for _ in blocks[1:2])):
        for sparsity in SPARSITIES:
            index = (neighbours if kept else kept_blocks)(case, shape, sparsity)
            name = f"{shape[0]}x{shape[1]} {kept} {sparsity}"
            runs[name] = lambda index=index: sparse_attention(q, k, v, index, return_lse=True)
            lines.append((name, shape, kept, sparsity, index))
    _, lse = dense_attention(q, k, v, return_lse=True)
    runs["mass"] = lambda: block_mass(q, k, lse, query_block=64, key_block=64)
    runs["search"] = lambda: searched_attention(q, k, v, query_block=128, key_block=64)
    with torch.no_grad():
        for run in runs.values():
            run()
        times = [{name: seconds(run, case.threads) for name, run in runs.items()} for _ in range(repetitions)]

    def ratio(name: str) -> dict[str, float]:
        ratios = sorted(one["dense"] / one[name] for one in times)
        return {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}

    sparse = []
    for name, shape, kept, sparsity, index in lines:
        density = index.indices.numel() / (case.heads * index.rows * index.columns)
        sparse.append(
            {
                "blocks": list(shape),
                "kept": kept,
                "sparsity": sparsity,
                "density": density,
                "index_bytes": index.nbytes,
                "seconds": statistics.median(one[name] for one in times),
                "speedup": ratio(name),
                "of_ideal": ratio(name)["median"] * density,
            }
        )
    dense = statistics.median(one["dense"] for one in times)
    return {
        "tokens": case.tokens,
        "width": case.width,
        "heads": case.heads,
        "threads": case.threads,
        "load_average": os.getloadavg()[0],
        "repetitions": repetitions,
        "dense_seconds": dense,
        "dense_gflops": 4e-9 * case.heads * case.tokens**2 * case.width / dense,
        "sparse": sparse,
        "mass_of_dense": 1 / ratio("mass")["median"],
        "search_of_dense": 1 / ratio("search")["median"] - 1.0,
        "mass_seconds": statistics.median(one["mass"] for one in times),
    }


def growth(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The exponent of time per head in the number of tokens, from the shortest to the longest of each width."""
    found = []
    alone = [case for case in cases if case["threads"] == 1]
    for width in sorted({case["width"] for case in alone}):
        same = sorted((case for case in alone if case["width"] == width), key=lambda case: case["tokens"])
        if len(same) < 2:
            continue
        first, last = same[0], same[-1]

        def exponent(pick: Callable[[dict[str, Any]], float], first: Any = first, last: Any = last) -> float:
            times = (pick(case) / case["heads"] for case in (last, first))
            return math.log(next(times) / next(times)) / math.log(last["tokens"] / first["tokens"])

        line = {
            "width": width,
            "from": first["tokens"],
            "to": last["tokens"],
            "dense": exponent(lambda case: case["dense_seconds"]),
            "mass": exponent(lambda case: case["mass_seconds"]),
        }
        for at, sparse in enumerate(first["sparse"]):
            name = f"{sparse['blocks'][0]}x{sparse['blocks'][1]} at {sparse['sparsity']}"
            if not sparse["kept"]:
                line[name] = exponent(lambda case, at=at: case["sparse"][at]["seconds"])
        found.append(line)
    return found


def table(cases: list[dict[str, Any]]) -> list[str]:
    """One line a size and kind of blocks."""
    lines = [
        "| tokens | width | heads | dense, ms (GFLOP/s) | blocks | at 0.8 | of ideal | at 0.9 | of ideal | mass | "
        "search | load |",
        "| ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in cases:
        for at in range(0, len(case["sparse"]), len(SPARSITIES)):
            cells = []
            for line in case["sparse"][at : at + len(SPARSITIES)]:
                speed = line["speedup"]
                cells.append(f"{speed['median']:.2f} ({speed['least']:.2f} to {speed['most']:.2f})")
                cells.append(f"{line['of_ideal']:.2f}")
            first = case["sparse"][at]
            blocks = "x".join(map(str, first["blocks"])) + (f", {first['kept']}" if first["kept"] else "")
            lines.append(
                f"| {case['tokens']} | {case['width']} | {case['heads']} | {1e3 * case['dense_seconds']:.0f} "
                f"({case['dense_gflops']:.0f}) | {blocks} | {' | '.join(cells)} | {case['mass_of_dense']:.2f} "
                f"| {case['search_of_dense']:.2f} | {case['load_average']:.1f} |"
            )
    return lines


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    lines = ["# Block-sparse attention on a CPU", "", f"`{report['command']}`", ""]
    lines += [f"- {name}: {value}" for name, value in report["environment"].items()]
    lines += [
        "",
        "Speed-up over `F.scaled_dot_product_attention` in float32, median of paired ratios (least to most); the ideal",
        "is 1 / density: 5 at sparsity 0.8, 10 at 0.9. Kept blocks are drawn at random, which is the least favourable",
        "case; where they are neighbours, every row keeps one run. Mass is what every block holds, worked out by",
        "itself, beside one dense attention; search is what a search takes beyond that, for output and mass at once.",
        "Load is how many processes wanted one of the cores, this one included.",
    ]
    for threads, heading in ((1, "One thread, by the time of the thread"), (2, "Two threads, by the clock")):
        cases = [case for case in report["cases"] if case["threads"] == threads]
        lines += ["", f"## {heading}", "", *table(cases)] if cases else []
    lines += ["", "Growth: time per head goes with tokens to the power of", ""]
    for line in report["growth"]:
        rest = ", ".join(f"{name} {value:.2f}" for name, value in line.items() if name not in ("width", "from", "to"))
        lines.append(f"- width {line['width']}, {line['from']} to {line['to']} tokens: {rest}")
    return "\n".join(lines) + "\n"


def summary(cases: list[dict[str, Any]]) -> list[str]:
    """What docs/sparse_attention.md shows: shares of the ideal with blocks of 128 x 64, from 8192 tokens on."""
    lines = [
        "| threads | width of a head | random blocks, 0.8 left out | 0.9 | one run a row, 0.8 | 0.9 |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    long = [case for case in cases if case["tokens"] >= 8192]
    for threads, width in sorted({(case["threads"], case["width"]) for case in long}):
        cells = []
        for kept in ("", NEXT):
            for sparsity in SPARSITIES:
                asked = ([128, 64], kept, sparsity)
                found = [
                    f"{line['of_ideal']:.2f}"
                    for case in long
                    for line in case["sparse"]
                    if (case["threads"], case["width"]) == (threads, width)
                    and (line["blocks"], line["kept"], line["sparsity"]) == asked
                ]
                cells.append(between(found))
        lines.append(f"| {threads} | {width} | {' | '.join(cells)} |")
    return lines


def between(numbers: list[str]) -> str:
    """From the least to the most."""
    return " to ".join(sorted({min(numbers), max(numbers)}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Block-sparse attention on one CPU core beside dense attention.")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that it works")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument(
        "--threads", type=int, choices=(1, 2), default=1, help="2 wants a machine that does nothing else"
    )
    parser.add_argument("--at-most", type=int, default=1 << 30, help="how many sizes this run measures")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    options = parser.parse_args()
    cases = (Case(640, 32, 1), Case(1280, 32, 1)) if options.quick else CASES
    file = options.out / "attention_cpu.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"cases": []}
    measured, text = {case["name"]: case for case in known["cases"]}, ""
    missing = [case for case in cases if case.threads == options.threads and case.name not in measured]
    options.out.mkdir(parents=True, exist_ok=True)
    for case in missing[: options.at_most]:
        measured[case.name] = {"name": case.name, **measure(case, options.repetitions)}
        torch.set_num_threads(1)
        print(f"{case.name}: done", file=sys.stderr, flush=True)
        found = [measured[case.name] for case in cases if case.name in measured]
        report = {
            "command": f"python benchmarks/attention_cpu.py{' --quick' if options.quick else ''}",
            "date": time.strftime("%Y-%m-%d"),
            "environment": environment(),
            "backends": {"sparse": SPARSE.last, "mass": MASS.last},
            "cases": found,
            "growth": growth(found),
        }
        file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        text = markdown(report)
        (options.out / "attention_cpu.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
