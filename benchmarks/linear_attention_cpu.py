"""Gated linear attention on one CPU core: how its time grows with the length, and from where on it beats softmax.

    python benchmarks/linear_attention_cpu.py [--quick] [--repetitions COUNT] [--out FOLDER]

Every repetition runs each kernel once at a length, in turn; ratios are taken within a repetition and the medians are
shown. Time is that of the process. Growth is the slope of log time over log length, from 4096 tokens on: 1 is linear,
2 is quadratic. Writes linear_attention_cpu.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from outpace.evaluation.environment import environment
from outpace.kernels.linear_attention import delta_rule, gated_linear_attention

HEADS, WIDTH = 4, 64
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
GROWTH_FROM = 4096


def kernels(tokens: int) -> dict[str, Callable[[], Tensor]]:
    """What is timed, on the same inputs."""
    torch.manual_seed(tokens)
    q, k, v = torch.randn(3, 1, HEADS, tokens, WIDTH)
    gate = F.logsigmoid(torch.randn(1, HEADS, tokens, WIDTH)) / 16
    key, beta = F.normalize(k, dim=-1), torch.rand(1, HEADS, tokens)
    return {
        "softmax": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "gate a channel": lambda: gated_linear_attention(q, k, v, gate),
        "gate a head": lambda: gated_linear_attention(q, k, v, gate[..., 0]),
        "delta rule": lambda: delta_rule(q, key, v, beta, gate[..., 0]),
    }


def measure(tokens: int, repetitions: int) -> dict[str, Any]:
    """Median seconds of every kernel, and how many times faster than softmax attention it was."""
    return {"tokens": tokens, **time_beside(kernels(tokens), "softmax", repetitions)}


def time_beside(runs: dict[str, Callable[[], Tensor]], beside: str, repetitions: int) -> dict[str, Any]:
    """Median seconds of every run, taken in turn, and how many times faster than the run `beside` it was."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.no_grad():
        for repetition in range(repetitions + 1):  # the first warms up
            for name, run in runs.items():
                start = time.process_time()
                run()
                if repetition:
                    times[name].append(time.process_time() - start)
    speed_up = {
        name: statistics.median(a / b for a, b in zip(times[beside], times[name], strict=True)) for name in runs
    }
    return {
        "seconds": {name: statistics.median(one) for name, one in times.items()},
        "speed_up": speed_up,
    }


def growth(cases: list[dict[str, Any]], name: str, start: int = GROWTH_FROM) -> float:
    """Slope of log time over log length by least squares, from `start` tokens on."""
    kept = [case for case in cases if case["tokens"] >= start] or cases
    x = [math.log(case["tokens"]) for case in kept]
    y = [math.log(case["seconds"][name]) for case in kept]
    return statistics.linear_regression(x, y).slope if len(kept) > 1 else math.nan


def markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    names = list(report["growth"])
    lines = ["# Gated linear attention on one CPU core", "", f"`{report['command']}`", ""]
    lines += [f"- {name}: {value}" for name, value in report["environment"].items()]
    lines += [
        "",
        f"Causal, float32, {HEADS} heads of width {WIDTH}, forward: process time in ms, and in brackets how many times",
        "faster than `F.scaled_dot_product_attention` on the same inputs, median of paired ratios.",
        "",
        f"| tokens | {' | '.join(names)} |",
        f"| ---: |{' ---: |' * len(names)}",
    ]
    for case in report["cases"]:
        cells = [f"{1e3 * case['seconds'][name]:.1f} ({case['speed_up'][name]:.2f})" for name in names]
        lines.append(f"| {case['tokens']} | {' | '.join(cells)} |")
    slopes = ", ".join(f"{name} {slope:.2f}" for name, slope in report["growth"].items())
    lines += ["", f"Growth (1 linear, 2 quadratic): {slopes}."]
    for name in names[1:]:
        first = report["faster_from"][name]
        lines.append(f"Faster than softmax attention at {first} tokens and all lengths above: {name}." if first else
                     f"Not faster than softmax attention at these lengths: {name}.")  # fmt: skip
    return "\n".join(lines) + "\n"


def faster_from(cases: list[dict[str, Any]], name: str) -> int | None:
    """The least measured length from which on it is faster than softmax attention at every one."""
    lengths = [case["tokens"] for case in cases]
    slower = [case["tokens"] for case in cases if case["speed_up"][name] <= 1]
    return next((tokens for tokens in lengths if tokens > max(slower, default=0)), None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Gated linear attention beside softmax attention, on one CPU core.")
    parser.add_argument("--quick", action="store_true", help="two short lengths, to see that it works")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = []
    for tokens in (256, 512) if options.quick else LENGTHS:
        cases.append(measure(tokens, options.repetitions))
        print(f"{tokens} tokens: done", file=sys.stderr, flush=True)
    names = list(cases[0]["seconds"])
    report = {
        "command": f"python benchmarks/linear_attention_cpu.py{' --quick' if options.quick else ''}",
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "cases": cases,
        "growth": {name: growth(cases, name) for name in names},
        "faster_from": {name: faster_from(cases, name) for name in names},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "linear_attention_cpu.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (options.out / "linear_attention_cpu.md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
