"""What is remembered of MossFormer."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers.separation import in_best_order, si_sdr
from ..mossformer import ScaleNorm, rotated
from ..numbers import numbers
from ..remember import case, filled, filled_model, given, thinned

case("mossformer", "the toy")(lambda: given("mossformer"))
case("mossformer", "where it drops in training")(lambda: thinned("mossformer"))
case("mossformer", "three speakers, wide keys, neighbours alone")(
    lambda: given("mossformer", speakers=3, key_width=70, filter=5, over_all=False)
)


@case("mossformer", "masks of a long recording, and one shorter than a window")
@torch.no_grad()
def masks() -> list[Tensor]:
    model = filled_model("mossformer", window=8, group=4)
    return [model.masks(numbers((2, 16, 21)).abs()), model(numbers((1, 5)))]


@case("mossformer", "next to no sound, and rows on both sides of where norms stop")
@torch.no_grad()
def faint() -> list[Tensor]:
    sizes = torch.tensor([1e-7, 1e-6, 1e-5, 1e-4, 1.0], dtype=torch.float64)
    norm = filled(ScaleNorm(8))
    return [filled_model("mossformer")(1e-5 * numbers((2, 100))), norm(sizes[:, None] * numbers((5, 8)))]


@case("mossformer", "the loss: decibels in the best order; turned keys")
@torch.no_grad()
def loss() -> list[object]:
    estimates, targets = numbers((3, 3, 40)), numbers((3, 3, 40), 1)
    mixed = 0.3 * estimates + targets[:, [2, 0, 1]]
    return [
        si_sdr(estimates, targets), si_sdr(estimates + 2, 3 * estimates), in_best_order(mixed, targets),
        rotated(numbers((2, 5, 7)), numbers((3,), 2)),
    ]  # fmt: skip
