"""DLGSANet's claim in small: a photograph enlarged by attention among channels with a ReLU, and with a softmax."""

from __future__ import annotations

from collections.abc import Callable

from ..dlgsanet import Dlgsanet, DlgsanetConfig
from .photographs import gain_over_bicubic
from .trial import Trial

STEPS = 200


def config_of(normaliser: str = "relu") -> DlgsanetConfig:
    """One group of one pair of layers, a third of the paper's width."""
    return DlgsanetConfig(width=18, groups=1, blocks=1, heads=3, kernel=5, scale=2, normaliser=normaliser)


def arm(normaliser: str) -> Callable[[int], float]:
    """Training with one way of weighing channels."""
    return lambda seed: gain_over_bicubic(lambda: Dlgsanet(config_of(normaliser)), seed, steps=STEPS)


TRIAL = Trial(
    claim="attention among channels enlarges better with a ReLU than with a softmax",
    measure="decibels over bicubic",
    higher_is_better=True,
    arms={"ReLU": arm("relu"), "softmax": arm("softmax")},
    against=("softmax",),
    task=f"two photographs, twice as large, columns held out, one group of width 18, {STEPS} steps of 4 crops",
)
