"""Which curve leaves another nothing: the share of its points that some point of the other beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .pareto import Point, dominates


def dominated_shares(points: Sequence[Point], curve_of: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """{curve: {other: share of the curve's points that a point of the other dominates}}, for every pair of curves.

    A point that is as fast and as good is not dominated, so two equal curves have 0 both ways. Means are compared as
    they are, without regard to their intervals.

    Args:
        points: all of one plane.
        curve_of: the curve of each point, by name.
    """
    curves: dict[str, list[Point]] = {}
    for point in points:
        curves.setdefault(curve_of[point.name], []).append(point)
    return {
        name: {
            other: sum(any(dominates(b, a) for b in theirs) for a in members) / len(members)
            for other, theirs in curves.items()
            if other != name
        }
        for name, members in curves.items()
    }
