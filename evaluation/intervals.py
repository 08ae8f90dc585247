"""How sure a value is: bootstrap over requests for means, jackknife for distances of sets, quartiles for medians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import MeasurementError

DRAWS = 2000
LEVEL = 0.95
GROUPS = 24
"""Parts that are left out in turn where a distance of sets gets its interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A value with the range it may lie in."""

    value: float
    low: float
    high: float
    n: int
    """How many requests or pairs are behind it."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@lru_cache(maxsize=8)
def resamples(n: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Bootstrap indices [draws, n]: the same for every quantity of one study, so that differences stay paired."""
    if n < 1:
        raise MeasurementError("nothing was measured, so there is no mean; run at least one request")
    indices = np.random.default_rng(seed).integers(0, n, size=(draws, n))
    indices.flags.writeable = False
    return indices


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap draws."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean with its 95 % bootstrap interval over requests.

    Raises: MeasurementError where there is no value, or one is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size and not np.isfinite(x).all():
        raise MeasurementError(
            f"{int((~np.isfinite(x)).sum())} of {x.size} values are not finite; a mean would hide it"
        )
    low, high = percentile_interval(x[resamples(x.size)].mean(axis=1))
    return Interval(value=float(x.mean()), low=low, high=high, n=int(x.size))


def median_quartiles(values: Sequence[float]) -> Interval:
    """The median with the first and third quartile.

    Raises: MeasurementError where there is no value.
    """
    x = np.asarray(values, dtype=np.float64)
    if not x.size:
        raise MeasurementError("nothing was timed, so there is no median; run at least one pair")
    low, middle, high = np.percentile(x, [25, 50, 75])
    return Interval(value=float(middle), low=float(low), high=float(high), n=int(x.size))


def jackknife_interval(
    distance: Callable[[np.ndarray, np.ndarray], float], made_RD: np.ndarray, reference_RD: np.ndarray
) -> dict[str, Any]:
    """{"value", "low", "high", "n"} of a distance between two sets of the same requests.

    No range where leaving some out leaves too few. Groups of requests are left out in turn, those of both sides
    together. Not a bootstrap: a resample repeats requests, which a distance of sets takes for likeness or for a smaller
    spread, so that its draws lie beside the value.

    Source: Quenouille 1956, with groups as in Kott, "The Delete-a-Group Jackknife", J. Official Statistics 17(4), 2001.

    Raises: MeasurementError where the distance itself cannot be taken of so few requests.
    """
    from scipy.stats import t as student

    n = len(made_RD)
    found: dict[str, Any] = {"value": distance(made_RD, reference_RD), "low": None, "high": None, "n": n}
    groups = min(n, GROUPS)
    group_of = np.arange(n) % groups
    try:
        without = np.array([distance(made_RD[group_of != g], reference_RD[group_of != g]) for g in range(groups)])
    except MeasurementError:
        return found
    error = float(np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum()))
    reach = float(student.ppf(0.5 + LEVEL / 2, groups - 1)) * error
    return found | {"low": found["value"] - reach, "high": found["value"] + reach}
