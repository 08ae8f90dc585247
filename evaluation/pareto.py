"""Speed against fidelity: who is dominated, the front, and what a curve reaches at a given speed-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One contender on the plane."""

    name: str
    speedup: float
    """Blocks of the plain pipeline / blocks computed."""

    quality: float
    """Higher is better."""


def dominates(a: Point, b: Point) -> bool:
    """True where `a` is at least as fast and as good as `b`, and strictly better in one of the two."""
    return a.speedup >= b.speedup and a.quality >= b.quality and (a.speedup > b.speedup or a.quality > b.quality)


def front(points: Sequence[Point]) -> list[Point]:
    """The points nobody dominates, slowest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.speedup, -p.quality)):
        if not kept or point.quality > kept[-1].quality:
            kept.append(point)
        elif (point.speedup, point.quality) == (kept[-1].speedup, kept[-1].quality):
            kept.append(point)
    return kept[::-1]


def at_speedup(speedups: np.ndarray, qualities: np.ndarray, target: float) -> float:
    """Quality of a curve at speed-up `target`, linear in (log speed-up, quality); NaN outside its points.

    Never extrapolates: a curve that does not reach the target has no value there. Points of equal speed-up count as
    their mean.

    Shapes: `speedups` and `qualities` [P], one entry a point of the curve, in any order.
    """
    x, place = np.unique(np.asarray(speedups, dtype=np.float64), return_inverse=True)
    y = np.bincount(place, weights=np.asarray(qualities, dtype=np.float64)) / np.bincount(place)
    slack = 1e-9 * target
    if not x.size or target < x[0] - slack or target > x[-1] + slack:
        return float("nan")
    return float(np.interp(np.log(target), np.log(x), y))
