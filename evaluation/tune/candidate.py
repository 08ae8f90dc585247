"""What is tuned: candidates that are opaque here, what was measured of each, and the time there is for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import OutpaceError
from ..contender import Request
from .target import Target

Scores = Mapping[str, float | None]
"""What was measured of one request: every metric of the target, "blocks", and "time" where it is asked for."""


class Failure(OutpaceError):
    """A candidate that this pipeline cannot run; the search goes on without it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to run the pipeline."""

    name: str
    """Unique."""

    label: str
    """The same for people."""

    cost: float
    """Share of the plain pipeline's work that it is guessed to need before anything is measured: only the order in
    which candidates are tried first depends on it."""

    payload: Any = None
    """What whoever measures needs to know of it."""

    kept: bool = False
    """Never dropped by the search, because people will ask how it stands: a preset."""


Evaluate = Callable[[Candidate, Sequence[Request]], list[Scores]]
"""Measures a candidate on requests, one `Scores` each in their order. Raises `Failure` where it cannot run."""


@dataclass(kw_only=True, slots=True)
class Standing:
    """What is known of one candidate."""

    candidate: Candidate
    scores: list[Scores] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """Mean share of the plain pipeline's work; the guess while nothing is measured."""
        return self.mean("blocks") if self.scores else self.candidate.cost

    def mean(self, name: str) -> float:
        """Mean of one number over the requests; NaN where any is missing."""
        return float(np.mean([_or_nan(scores.get(name)) for scores in self.scores]))

    def misses(self, target: Target) -> int:
        return sum(bool(target.missed(scores)) for scores in self.scores)

    def margin(self, target: Target, share: float) -> float:
        """The margin that all but `share` of the requests reach: at least 0 where that many keep the target."""
        return float(np.quantile([target.margin(scores) for scores in self.scores], share, method="lower"))

    def worth(self, target: Target) -> float:
        """What is wanted beyond keeping the target, more is better: little work, or fidelity where none was asked."""
        if target.fidelity:
            return -self.cost
        psnr = np.median([_or_nan(scores.get("psnr")) for scores in self.scores])
        return float(psnr) if np.isfinite(psnr) else -np.inf


class Deadline:
    """A budget of seconds that has begun to run.

    Args:
        seconds: None for no end.
        clock: tells seconds; tests give their own.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self.begun, self.seconds = clock, clock(), seconds

    @property
    def spent(self) -> float:
        return self._clock() - self.begun

    @property
    def over(self) -> bool:
        return self.seconds is not None and self.spent >= self.seconds

    def share(self, part: float) -> Deadline:
        """The first `part` of this budget, counted from the same beginning."""
        shorter = Deadline(None if self.seconds is None else self.seconds * part, self._clock)
        shorter.begun = self.begun
        return shorter


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)
