"""CRATE's claim in small: whether tokens of a trained model get sparser from layer to layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from ..crate import Crate, CrateConfig
from .digits import TEST, digits, teach_digits
from .trial import Trial

LAYERS, STEPS = 6, 400


@lru_cache(maxsize=1)
def shares(seed: int) -> tuple[float, ...]:
    """Of a model trained on digits, the share of numbers that are not zero after each layer."""
    torch.manual_seed(seed)
    model = Crate(CrateConfig(width=64, layers=LAYERS, heads=4, picture=8, patch=2, channels=1, classes=10))
    teach_digits(model, seed, steps=STEPS)
    with torch.no_grad():
        return tuple(float((z != 0).float().mean()) for z in model.tokens(digits()[0][:TEST]))


def arm(layer: int) -> Callable[[int], float]:
    """What one layer leaves."""
    return lambda seed: shares(seed)[layer]


TRIAL = Trial(
    claim="the last layer's tokens have fewer numbers that are not zero than every layer's before it",
    measure="share of numbers that are not zero",
    higher_is_better=False,
    arms={f"layer {layer + 1}": arm(layer) for layer in (LAYERS - 1, *range(LAYERS - 1))},
    against=tuple(f"layer {layer + 1}" for layer in range(LAYERS - 1)),
    task=f"digits of 8 x 8, {LAYERS} layers of width 64, {STEPS} steps of 64",
)
