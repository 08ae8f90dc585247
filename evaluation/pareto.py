"""Speed against fidelity: dominance, the front, a curve's quality at a speed-up and its speed-up at a quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 1.5
"""A point stands for its curve where its speed-up is within this factor of the asked one."""


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


def nearest_of_each(speedups: Mapping[str, float], curve_of: Mapping[str, str], target: float) -> list[str]:
    """One name a curve: the point nearest to `target`; curves with nothing within a factor of 1.5 are left out.

    Args:
        speedups: by name of the point.
        curve_of: the curve of each point.
    """
    nearest: dict[str, tuple[float, str]] = {}
    for name, speedup in speedups.items():
        distance = abs(float(np.log(speedup / target)))
        if distance <= float(np.log(NEAR)):
            held = nearest.get(curve_of[name])
            if held is None or distance < held[0]:
                nearest[curve_of[name]] = (distance, name)
    return [name for _, name in nearest.values()]


def at_speedup(speedups: np.ndarray, qualities: np.ndarray, target: float) -> float:
    """Quality of a curve at speed-up `target`, linear in (log speed-up, quality); NaN outside its points.

    Never extrapolates: a curve that does not reach the target has no value there. Points of equal speed-up count as
    their mean.

    Shapes: `speedups` and `qualities` [P], one entry a point of the curve, in any order.
    """
    x, y = merged(speedups, qualities)
    slack = 1e-9 * target
    if not x.size or target < x[0] - slack or target > x[-1] + slack:
        return float("nan")
    return float(np.interp(np.log(target), np.log(x), y))


def merged(speedups: np.ndarray, qualities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of a curve, slowest first, those of equal speed-up as one with their mean quality."""
    x, place = np.unique(np.asarray(speedups, dtype=np.float64), return_inverse=True)
    return x, np.bincount(place, weights=np.asarray(qualities, dtype=np.float64)) / np.bincount(place)


def at_speedup_of_draws(speedups_BP: np.ndarray, qualities_BP: np.ndarray, target: float) -> np.ndarray:
    """`at_speedup` of every bootstrap draw at once, [B]; a point drawn twice at one speed-up counts as either.

    Shapes: B draws, P points.
    """
    order = np.argsort(speedups_BP, axis=1)
    x = np.log(np.take_along_axis(speedups_BP, order, axis=1))
    y = np.take_along_axis(qualities_BP, order, axis=1)
    goal, rows = np.log(target), np.arange(len(x))
    left = np.clip((x <= goal).sum(axis=1) - 1, 0, max(x.shape[1] - 2, 0))
    right = np.minimum(left + 1, x.shape[1] - 1)
    gap = x[rows, right] - x[rows, left]
    share = np.where(gap > 0, (goal - x[rows, left]) / np.where(gap > 0, gap, 1.0), 0.0).clip(0.0, 1.0)
    value = y[rows, left] + share * (y[rows, right] - y[rows, left])
    inside = (x[:, 0] - 1e-9 <= goal) & (goal <= x[:, -1] + 1e-9)
    return np.where(inside, value, np.nan)


def at_quality(speedups: np.ndarray, qualities: np.ndarray, level: float) -> float:
    """The highest speed-up at which a curve still has quality `level`: `at_speedup` the other way round.

    Infinity where its fastest point still has it, and 0 where no place along the curve does: how far it goes on beyond
    its points is not known.

    Shapes: `speedups` and `qualities` [P], one entry a point of the curve, in any order.
    """
    x, y = merged(speedups, qualities)
    return float(at_quality_of_draws(x[None], y[None], level)[0])


def at_quality_of_draws(speedups_BP: np.ndarray, qualities_BP: np.ndarray, level: float) -> np.ndarray:
    """`at_quality` of every bootstrap draw at once, [B].

    Shapes: B draws, P points.
    """
    order = np.argsort(speedups_BP, axis=1)
    x = np.log(np.take_along_axis(speedups_BP, order, axis=1))
    y = np.take_along_axis(qualities_BP, order, axis=1)
    held, points, rows = y >= level, x.shape[1], np.arange(len(x))
    left = points - 1 - np.argmax(held[:, ::-1], axis=1)  # the fastest point that has it
    right = np.minimum(left + 1, points - 1)
    drop = y[rows, left] - y[rows, right]
    share = np.where(drop > 0, (y[rows, left] - level) / np.where(drop > 0, drop, 1.0), 0.0)
    between = np.exp(x[rows, left] + share * (x[rows, right] - x[rows, left]))
    return np.where(held.any(axis=1), np.where(held[:, -1], np.inf, between), 0.0)
