"""How hard the pocket `photo` is: its results at 50 steps beside what was published for FLUX.1-dev, for docs/photo.md.

Published: PSNR in dB to the plain picture, 50 steps, 1024 x 1024, by end-to-end speed-up: from the figures behind the
plots of the gate's authors (arXiv:2508.02240), and from ChituDiffusion's table of caches for FLUX.1-dev, which names
TaylorSeer's intervals. Ours: by computed blocks, read between a curve's points; TaylorSeer, which leaves out layers
that a count of blocks does not see, at the same interval.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from standing import SHOWN, curves_of, pair, value_at


@dataclass(frozen=True, slots=True)
class Published:
    """One published figure."""

    label: str
    speedup: float
    """End to end."""
    psnr: float
    curve: str = ""
    """Of ours that is read at that speed-up."""
    contender: str = ""
    """Of ours that is the same setting, where speed-ups cannot be compared."""


PUBLISHED = (
    Published("gated, paper", 2.06, 29.4, curve="gated, paper"),
    Published("gated, paper", 2.45, 26.3, curve="gated, paper"),
    Published("gated, paper", 2.92, 24.2, curve="gated, paper"),
    Published("gated, paper", 3.23, 22.0, curve="gated, paper"),
    Published("MeanCache", 2.01, 28.7, curve="MeanCache"),
    Published("MeanCache", 2.94, 26.4, curve="MeanCache"),
    Published("MeanCache", 4.99, 19.9, curve="MeanCache"),
    Published("after TeaCache", 1.44, 22.4, curve="after TeaCache"),
    Published("after TeaCache", 1.73, 22.1, curve="after TeaCache"),
    Published("after TeaCache", 2.29, 19.3, curve="after TeaCache"),
    Published("TaylorSeer, every 2nd", 1.72, 24.7, contender="taylorseer-2"),
    Published("TaylorSeer, every 3rd", 2.33, 20.7, contender="taylorseer-3"),
    Published("TaylorSeer, every 5th", 3.15, 15.7, contender="taylorseer-5"),
)

WITHIN = 5.0
"""How near the pocket was meant to come, in dB."""


def table(comparisons: Iterable[dict[str, Any]]) -> str:
    """The table, or a sentence where the pocket has no results yet."""
    found = [d for d in comparisons if d["pipeline"]["name"] == "photo" and d["pipeline"]["steps"] == 50]
    if not found:
        return "It has not been measured yet."
    data = found[-1]
    curves = curves_of(data, by_time=False)
    slowest, *_, fastest = sorted(curves[next(c["curve"] for c in data["contenders"] if c["kind"] == "scheduled")])
    reached = {
        c["name"]: c["metrics"][data["study"]["plain"]]["psnr"]
        for c in data["contenders"]
        if not c["error"] and data["study"]["plain"] in (c["metrics"] or {})
    }
    half = reached["steps-25"]
    lines = ["| as published | at | FLUX.1-dev | photo | apart |", "| --- | ---: | ---: | ---: | ---: |"]
    apart = []
    for one in PUBLISHED:
        if one.contender:
            here = reached[one.contender]["value"] if one.contender in reached else None
        else:
            found = value_at(curves[one.curve], one.speedup) if one.curve in curves else None
            here = found[0] if found else None
        cells = f"| {one.label} | {one.speedup:.2f}x | {one.psnr:.1f} |"
        if here is None:
            lines.append(f"{cells} not reached | |")
            continue
        apart.append(here - one.psnr)
        lines.append(f"{cells} {here:.1f} | {here - one.psnr:+.1f} |")
    near = sum(abs(difference) <= WITHIN for difference in apart)
    where = data["environment"].get("device", "")
    said = [
        f"{near} of {len(apart)} are within {WITHIN:g} dB; the mean is {fmean(apart):+.1f} dB.",
        f"25 of its 50 steps lie at {half['value']:.1f} dB, worst picture {half['worst']:.1f}.",
        f"Our dial, at {slowest[0]:.1f} to {fastest[0]:.1f} times, from {slowest[1]:.1f} to {fastest[1]:.1f} dB.",
        f"{data['study']['samples']} prompts, {where}, {data['pipeline']['precision']}.",
    ]
    return "\n".join([*lines, "", " ".join(said)])


def rivals(comparisons: Iterable[dict[str, Any]]) -> str:
    """Every curve of photo and of its sister, mean and worst PSNR at the compared speed-ups; the best mean in bold."""
    lines = []
    for data in comparisons:
        if data["pipeline"]["name"] not in ("photo", "photo-sister"):
            continue
        curves = {c: [value_at(points, at) for at in SHOWN] for c, points in curves_of(data, by_time=False).items()}
        reached = [[cells[i] for cells in curves.values()] for i in range(len(SHOWN))]
        best = [max((cell[0] for cell in cells if cell), default=None) for cells in reached]
        lines += [
            "",
            f"| {data['pipeline']['name']}, {data['pipeline']['steps']} steps | "
            + " | ".join(f"{x:g}x" for x in SHOWN)
            + " |",
            "| --- |" + " ---: |" * len(SHOWN),
        ]
        for curve, cells in curves.items():
            told = [pair(cell, bold=cell is not None and cell[0] == top) for cell, top in zip(cells, best, strict=True)]
            if any(told):
                lines.append(f"| {curve} | {' | '.join(told)} |")
    return "\n".join(lines[1:])
