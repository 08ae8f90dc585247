"""What 8-bit codes in the place of a pocket's weights save in memory, cost in fidelity, and cost in time.

    make bench-int8     # or: python benchmarks/int8.py [--prompts COUNT] [--steps COUNT] [--out FOLDER]

Every way makes the same held-out prompts from the same noise as the dense pipeline in float32, which its pictures are
held to, plain and under GatedTaylor. Time is that of the process: each way and the dense pipeline in turn, the medians
of ratios. One thread. Writes benchmarks/results/int8.json and docs/results_int8.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

import outpace
from outpace.accel.experts import Conversion, Integers, convert, weight_bytes
from outpace.evaluation.atomic import make_folder, write_json
from outpace.evaluation.environment import environment
from outpace.evaluation.metrics.psnr import psnr
from outpace.evaluation.timing import span
from outpace.files import write_text
from outpace.pipelines.load import Loaded, call_arguments, load_pipeline, run_pipeline

ROOT = Path(__file__).resolve().parent.parent
POCKETS = ("dit", "flux")
FIRST_SEED = 700_000
TIMED = 2
"""Prompts of a call that is timed."""


WAYS: dict[str, Callable[[Any], Any]] = {
    "dense": lambda dense: dense,
    "codes, a scale for 64 weights": lambda dense: convert(dense, Conversion(integers=Integers())),
    "codes, a scale for a row": lambda dense: convert(dense, Conversion(integers=Integers(block=1 << 20))),
    "codes, whole 8-bit products too": lambda dense: convert(dense, Conversion(integers=Integers(inputs=8))),
}


def pictures(loaded: Loaded, count: int, steps: int, first: int = 0) -> list[np.ndarray]:
    """`count` held-out prompts from fixed noise."""
    assert loaded.pocket is not None
    prompts = loaded.pocket.prompts(first + count, "held_out")[first:]
    seeds = range(FIRST_SEED + first, FIRST_SEED + first + count)
    return run_pipeline(loaded, prompts, list(seeds), call_arguments(loaded, steps=steps))


def near(made: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, float] | None:
    """PSNR in decibel over the requests; None where all are identical."""
    values = [psnr(one, other) for one, other in zip(made, truth, strict=True)]
    if min(values) == float("inf"):
        return None
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def measure_pocket(name: str, count: int, steps: int, pairs: int) -> dict[str, Any]:
    """Every way on one pocket."""
    loaded = load_pipeline(name, dtype=torch.float32, device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    dense = loaded.pipe.transformer
    models = {way: make(dense) for way, make in WAYS.items()}
    plain = pictures(loaded, count, steps)
    with outpace.accelerate(loaded.pipe, outpace.GatedTaylor()):
        gated = pictures(loaded, count, steps)
    rows = {}
    for way, model in models.items():
        loaded.pipe.transformer = model
        made = pictures(loaded, count, steps)
        with outpace.accelerate(loaded.pipe, outpace.GatedTaylor()) as run:
            forecast = pictures(loaded, count, steps)
        totals = run.trace.totals()
        ratios = []
        for turn in range(pairs):
            seconds = []
            for one in (dense, model):
                loaded.pipe.transformer = one
                seconds.append(span(lambda turn=turn: pictures(loaded, TIMED, steps, count + turn * TIMED)).cpu)
            ratios.append(seconds[1] / seconds[0])
        rows[way] = {
            "bytes": {"float32": weight_bytes(model), "bfloat16": weight_bytes(model, torch.bfloat16)},
            "psnr": near(made, plain),
            "gated psnr": near(forecast, plain),
            "gated psnr to dense gated": near(forecast, gated),
            "forecast": totals["forecast"],
            "time": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        }
        print(name, way, rows[way], flush=True)
    return rows


def markdown(report: dict[str, Any]) -> str:
    """The report as docs/results_int8.md."""
    lines = [
        "# 8-bit codes: what they save and cost",
        "",
        f"Written by `{report['command']}`; nothing here is typed in. How it works: [int8.md](int8.md).",
        "",
        f"{report['prompts']} held-out prompts, {report['steps']} steps, float32 on one CPU thread. PSNR is that of "
        "the pictures against the dense pipeline's from the same noise: median (least to most). Time is process time "
        f"beside the dense pipeline's, in {report['pairs']} pairs: median (least to most); 2 takes twice as long. "
        "Weights in MB, with what is not a code in float32 or in bfloat16.",
    ]
    for pocket, rows in report["pockets"].items():
        lines += [
            "",
            f"## `{pocket}`",
            "",
            "| transformer | MB, the rest float32 | bfloat16 | PSNR | under `GatedTaylor()` | time |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for way, row in rows.items():
            sizes = " | ".join(f"{size / 1e6:.2f}" for size in row["bytes"].values())
            near_plain = f"{told(row['psnr'])} | {told(row['gated psnr'])}"
            lines.append(f"| {way} | {sizes} | {near_plain} | {told(row['time'], '.2f')} |")
    lines += ["", *(f"- {name}: {value}" for name, value in report["environment"].items())]
    return "\n".join(lines) + "\n"


def told(row: dict[str, float] | None, form: str = ".1f") -> str:
    """Median and ends in one cell."""
    return "identical" if row is None else f"{row['median']:{form}} ({row['least']:{form}} to {row['most']:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory, fidelity and time of 8-bit codes on two pockets.")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pockets", nargs="+", default=list(POCKETS))
    parser.add_argument("--out", type=Path, default=ROOT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "command": "make bench-int8",
        "prompts": asked.prompts,
        "steps": asked.steps,
        "pairs": asked.pairs,
        "pockets": {name: measure_pocket(name, asked.prompts, asked.steps, asked.pairs) for name in asked.pockets},
        "environment": environment(),
    }
    for place in (asked.out / "benchmarks" / "results", asked.out / "docs"):
        make_folder(place)
    write_json(asked.out / "benchmarks" / "results" / "int8.json", report, indent=1)
    write_text(asked.out / "docs" / "results_int8.md", markdown(report))


if __name__ == "__main__":
    main()
