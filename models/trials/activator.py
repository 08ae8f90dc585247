"""Activator's claim in small: digits, beside transformers with and without positions."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..activator import Activator, ActivatorConfig
from .digits import DigitTransformer, digit_accuracy
from .trial import Trial

STEPS = 300


def arm(make: Callable[[], nn.Module]) -> Callable[[int], float]:
    """Training one of the models."""
    return lambda seed: digit_accuracy(make, seed, steps=STEPS)


def small(*, feed_forward: bool) -> Activator:
    """Three blocks of width 64."""
    return Activator(
        ActivatorConfig(patch=2, channels=1, width=64, hidden=128, layers=3, dropout=0.0, feed_forward=feed_forward)
    )


TRIAL = Trial(
    claim="a gated unit in the place of attention is better than a vision transformer",
    measure="share of held-out digits named right",
    higher_is_better=True,
    arms={
        "Activator": arm(lambda: small(feed_forward=True)),
        "transformer with positions": arm(lambda: DigitTransformer(width=64, layers=3, positions=True)),
        "transformer without positions": arm(lambda: DigitTransformer(width=64, layers=3, positions=False)),
        "unit only": arm(lambda: small(feed_forward=False)),
    },
    against=("transformer with positions",),
    task=f"scikit-learn's digits in patches of 2 x 2, three blocks of width 64, {STEPS} steps of 64",
)
