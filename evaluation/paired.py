"""Whether a contender differs from the plain pipeline beyond chance, request by request.

The test flips the signs of the differences at random. Why this one: it tests the mean that tables show, where
Wilcoxon's tests ranks and leaves out ties, which accuracies of 0 and 1 are mostly made of; and it needs no normal
distribution, as a t-test does with few requests. It assumes that a difference is as likely as its negative where
nothing differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .intervals import mean_interval

EXACT = 12
"""Up to so many requests all sign patterns are tried."""

FLIPS = 9999


@lru_cache(maxsize=4)
def signs(n: int) -> np.ndarray:
    """Sign patterns [patterns, n]: all of them for few requests, otherwise the same random ones for every quantity."""
    if n <= EXACT:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        patterns = np.random.default_rng(0).integers(0, 2, size=(FLIPS, n))
    return (1 - 2 * patterns).astype(np.int8)


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p-value that the mean difference is zero.

    Source: Fisher's randomization test for pairs; Phipson and Smyth, 2010, arXiv:1603.05766, for counting the observed
    pattern among random ones, which keeps a p-value from being 0.
    """
    x = np.asarray(differences, dtype=np.float64)
    seen = abs(x.sum())
    as_large = int((np.abs(signs(x.size) @ x) >= seen * (1 - 1e-12)).sum())
    return as_large / 2**x.size if x.size <= EXACT else (as_large + 1) / (FLIPS + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for how many contenders are tested. Source: Holm, Scand. J. Statistics 6(2), 1979."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p))
        adjusted[name] = largest
    return adjusted


def beside_plain(made: Mapping[str, Sequence[float]], plain: Sequence[float]) -> dict[str, dict[str, Any]]:
    """For each contender the mean difference from the plain pipeline: {"value", "low", "high", "n", "p", "p_adjusted"}.

    Args:
        made: values of each contender, request by request.
        plain: the plain pipeline's own, of the same requests.
    """
    return paired_tests(
        {name: np.asarray(values, dtype=np.float64) - np.asarray(plain) for name, values in made.items()}
    )


def paired_tests(differences: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """For each contender its mean difference with interval and p, adjusted for how many there are.

    Args:
        differences: of each contender, request by request.
    """
    p_values = {name: sign_flip_p(x) for name, x in differences.items()}
    adjusted = holm(p_values)
    return {
        name: mean_interval(list(x)).as_dict() | {"p": p_values[name], "p_adjusted": adjusted[name]}
        for name, x in differences.items()
    }
