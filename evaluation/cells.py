"""What each curve reaches at stated speed-ups, and by how much one curve is ahead of another there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .contender import KINDS
from .intervals import percentile_interval, resamples
from .pareto import at_speedup, at_speedup_of_draws

SPEEDUPS = (2.0, 2.5, 3.0, 4.0, 5.0)
DRAWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The points of one kind of contender with one setting varied, request by request.

    Shapes: P points, R requests.
    """

    name: str
    kind: str
    plain_R: np.ndarray
    """Work of the plain pipeline, in blocks."""

    work_PR: np.ndarray
    quality_PR: np.ndarray

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Speed-up and quality of every point on all requests, [P] each."""
        return self.plain_R.sum() / self.work_PR.sum(axis=1), self.quality_PR.mean(axis=1)

    def points_of_draws(self, draws_BR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Speed-up and quality of every point on each bootstrap draw of requests, [B, P] each."""
        speedups_PB = self.plain_R[draws_BR].sum(axis=1)[None] / self.work_PR[:, draws_BR].sum(axis=2)
        return speedups_PB.T, self.quality_PR[:, draws_BR].mean(axis=2).T


def reach(curve: Curve, speedup: float, draws_BR: np.ndarray) -> tuple[float, np.ndarray]:
    """Quality of `curve` at `speedup`, on all requests and on each bootstrap draw [B]; NaN where not reached."""
    return at_speedup(*curve.points(), speedup), at_speedup_of_draws(*curve.points_of_draws(draws_BR), speedup)


def worst_at(curve: Curve, speedup: float) -> float | None:
    """Quality of the worst request of `curve` at `speedup`, between its points; None where not reached."""
    found = at_speedup(curve.points()[0], curve.quality_PR.min(axis=1), speedup)
    return float(found) if np.isfinite(found) else None


def interval(value: float, draws: np.ndarray) -> dict[str, Any] | None:
    """{"value", "low", "high"}; None where the value is missing; no range where most draws miss it."""
    if not np.isfinite(value):
        return None
    finite = draws[np.isfinite(draws)]
    low, high = percentile_interval(finite) if finite.size > draws.size / 2 else (None, None)
    return {"value": value, "low": low, "high": high}


def compare_at(curves: Sequence[Curve], speedups: Sequence[float] = SPEEDUPS) -> list[dict[str, Any]]:
    """One entry a curve and speed-up: its quality there, and for ours its margin over every other curve.

    A margin is "ahead" or "behind" where its paired 95 % interval leaves zero out, otherwise "even". Both sides are
    drawn from the same resampled requests.
    """
    if not curves:
        return []
    draws = resamples(curves[0].plain_R.size, DRAWS)
    entries = []
    for speedup in speedups:
        reached = {curve.name: reach(curve, speedup, draws) for curve in curves}
        for curve in curves:
            value, spread = reached[curve.name]
            entry: dict[str, Any] = {
                "curve": curve.name,
                "kind": curve.kind,
                "speedup": speedup,
                "quality": interval(value, spread),
                "worst": worst_at(curve, speedup),
                "margins": {},
            }
            if KINDS[curve.kind].ours and entry["quality"]:
                for rival in curves:
                    if KINDS[rival.kind].ours or not np.isfinite(reached[rival.name][0]):
                        continue
                    margin = interval(value - reached[rival.name][0], spread - reached[rival.name][1])
                    if margin:
                        entry["margins"][rival.name] = margin | {"verdict": verdict(margin)}
            entries.append(entry)
    return entries


def verdict(margin: dict[str, Any]) -> str:
    """ "ahead", "behind" or "even" for a margin with its interval."""
    if margin["low"] is None:
        return "even"
    return "ahead" if margin["low"] > 0 else "behind" if margin["high"] < 0 else "even"
