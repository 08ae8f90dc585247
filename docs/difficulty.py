"""How hard the pocket `photo` is: its results at 50 steps beside what was published for FLUX.1-dev, for docs/photo.md.

Published: PSNR in dB to the plain picture by end-to-end speed-up, 50 steps, 1024 x 1024, from the figures behind the
plots of the gate's authors (arXiv:2508.02240). Ours: by computed blocks. Both are read between their points alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from standing import curves_of, value_at

PUBLISHED: dict[str, tuple[tuple[float, float], ...]] = {
    "gated, paper": ((2.06, 29.4), (2.45, 26.3), (2.92, 24.2), (3.23, 22.0)),
    "TaylorSeer": ((2.04, 20.6), (2.29, 20.2), (2.83, 17.4)),
    "after TeaCache": ((1.44, 22.4), (1.73, 22.1), (2.29, 19.3)),
}
"""Speed-up and PSNR, by the curve."""

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
    half = next(c for c in data["contenders"] if c["name"] == "steps-25")["metrics"][data["study"]["plain"]]["psnr"]
    lines = ["| as published | at | FLUX.1-dev | photo | apart |", "| --- | ---: | ---: | ---: | ---: |"]
    apart = []
    for curve, points in PUBLISHED.items():
        for speedup, published in points:
            here = value_at(curves[curve], speedup) if curve in curves else None
            cells = f"| {curve} | {speedup:.2f}x | {published:.1f} |"
            if here is None:
                lines.append(f"{cells} not reached | |")
                continue
            apart.append(here[0] - published)
            lines.append(f"{cells} {here[0]:.1f} | {here[0] - published:+.1f} |")
    near = sum(abs(difference) <= WITHIN for difference in apart)
    layers = [
        (c["name"].rpartition("-")[2], c["metrics"][data["study"]["plain"]]["psnr"]["value"])
        for c in data["contenders"]
        if c["name"].rpartition("-")[0] == "taylorseer" and not c["error"]
    ]
    where = data["environment"].get("device", "")
    said = [
        f"{near} of {len(apart)} are within {WITHIN:g} dB; the mean is {sum(apart) / len(apart):+.1f} dB.",
        f"25 of its 50 steps lie at {half['value']:.1f} dB, worst picture {half['worst']:.1f}.",
        "TaylorSeer leaves out layers and not blocks, which a count of blocks does not see: at intervals of "
        f"{', '.join(interval for interval, _ in layers)} it lies at {', '.join(f'{v:.1f}' for _, v in layers)} dB.",
        f"Our dial, at {slowest[0]:.1f} to {fastest[0]:.1f} times, from {slowest[1]:.1f} to {fastest[1]:.1f} dB.",
        f"{data['study']['samples']} prompts, {where}, {data['pipeline']['precision']}.",
    ]
    return "\n".join([*lines, "", " ".join(said)])
