"""CRAFT's claim in small: a photograph enlarged with high frequencies as attention's query, and without."""

from __future__ import annotations

from collections.abc import Callable

from ..craft import Craft, CraftConfig
from .photographs import gain_over_bicubic
from .trial import Trial

STEPS = 200


def config_of(*, high_frequencies: bool = True) -> CraftConfig:
    """One group of one block at half of the paper's width."""
    return CraftConfig(
        width=24, groups=1, blocks=1, heads=4, window=(4, 16), scale=2, high_frequencies=high_frequencies
    )


def arm(*, high_frequencies: bool) -> Callable[[int], float]:
    """Training with the query taken from the high frequencies, or from what windows found."""
    return lambda seed: gain_over_bicubic(
        lambda: Craft(config_of(high_frequencies=high_frequencies)), seed, steps=STEPS
    )


TRIAL = Trial(
    claim="high frequencies as the query enlarge better than the features themselves as the query",
    measure="decibels over bicubic",
    higher_is_better=True,
    arms={"high frequencies": arm(high_frequencies=True), "features": arm(high_frequencies=False)},
    against=("features",),
    task=f"two photographs, twice as large, columns held out, one block of width 24, {STEPS} steps of 4 crops",
)
