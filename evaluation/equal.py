"""How fast each curve is for the same picture: its speed-up at stated levels of quality, and by how much it leads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .cells import DRAWS, Curve
from .contender import KINDS
from .intervals import LEVEL, percentile_interval, resamples
from .pareto import at_quality, at_quality_of_draws


def levels_of(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What fewer steps reach at the compared speed-ups: {"quality", "curve", "speedup"}, the highest quality first.

    Of several such curves the first that reaches a speed-up gives its level; empty where none was run.

    Args:
        cells: what `compare_at` gave.
    """
    found: dict[float, dict[str, Any]] = {}
    for cell in cells:
        if cell["kind"] == "fewer-steps" and cell["quality"]:
            level = {"quality": cell["quality"]["value"], "curve": cell["curve"], "speedup": cell["speedup"]}
            found.setdefault(cell["speedup"], level)
    return sorted(found.values(), key=lambda level: -level["quality"])


def compare_at_levels(curves: Sequence[Curve], levels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a curve and level: the highest speed-up at which the curve has that quality, and our lead over others.

    "speedup" is None where the curve has the quality nowhere; its "open" is true where even the fastest point has it,
    whose speed-up then stands for "at least". Ranges end at a curve's slowest and fastest points. A lead is the ratio
    of two speed-ups, "ahead" or "behind" where 97.5 % of the paired draws say so, otherwise "even"; two open ones have
    none.

    Args:
        levels: what `levels_of` gave.
    """
    if not curves:
        return []
    draws = resamples(curves[0].plain_R.size, DRAWS)
    points = {curve.name: curve.points() for curve in curves}
    drawn = {curve.name: curve.points_of_draws(draws) for curve in curves}
    entries = []
    for level in levels:
        value = {name: at_quality(*points[name], level["quality"]) for name in points}
        spread = {name: at_quality_of_draws(*drawn[name], level["quality"]) for name in points}
        ends = {name: (x.min(), x.max()) for name, (x, _) in points.items()}
        for curve in curves:
            entry: dict[str, Any] = {
                "curve": curve.name,
                "kind": curve.kind,
                "level": level["quality"],
                "speedup": None,
                "margins": {},
            }
            if value[curve.name] > 0:
                shown = np.clip(spread[curve.name], *ends[curve.name])
                low, high = percentile_interval(shown)
                is_open = bool(np.isinf(value[curve.name]))
                own = min(value[curve.name], ends[curve.name][1])
                entry["speedup"] = {"value": float(own), "low": low, "high": high, "open": is_open}
                for rival in curves:
                    both_open = is_open and np.isinf(value[rival.name])
                    if not KINDS[curve.kind].ours or KINDS[rival.kind].ours or not value[rival.name] or both_open:
                        continue
                    low, high = percentile_interval(shown / np.clip(spread[rival.name], *ends[rival.name]))
                    entry["margins"][rival.name] = {
                        "value": float(own / min(value[rival.name], ends[rival.name][1])),
                        "low": low,
                        "high": high,
                        "verdict": who_leads(spread[curve.name], spread[rival.name]),
                    }
            entries.append(entry)
    return entries


def who_leads(ours_B: np.ndarray, rival_B: np.ndarray) -> str:
    """ "ahead" or "behind" where nearly all draws agree; draws in which both are open, or neither is there, do not."""
    sure = 1 - (1 - LEVEL) / 2
    if np.mean(ours_B > rival_B) >= sure:
        return "ahead"
    return "behind" if np.mean(ours_B < rival_B) >= sure else "even"
