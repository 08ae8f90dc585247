"""CRATE's claim in small: whether tokens of a trained model get sparser from layer to layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..crate import Crate, CrateConfig
from .digits import TEST, digits
from .fit import fit
from .trial import Trial

LAYERS, STEPS = 6, 400


@lru_cache(maxsize=1)
def shares(seed: int) -> tuple[float, ...]:
    """Of a model trained on digits, the share of numbers that are not zero after each layer."""
    torch.manual_seed(seed)
    model, generator = (
        Crate(CrateConfig(width=64, layers=LAYERS, heads=4, picture=8, patch=2, channels=1, classes=10)),
        torch.Generator().manual_seed(seed),
    )
    pictures, classes = digits()

    def loss(_step: int) -> Tensor:
        chosen = torch.randint(TEST, len(classes), (64,), generator=generator)
        return F.cross_entropy(model(pictures[chosen]), classes[chosen])

    fit(model, loss, steps=STEPS, rate=2e-3)
    with torch.no_grad():
        return tuple(float((z != 0).float().mean()) for z in model.tokens(pictures[:TEST]))


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
