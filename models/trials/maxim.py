"""MAXIM's claim in small: photographs without their noise, by mixing along both axes and inside blocks alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..maxim import AxisDense, AxisGmlp, GatingWeights, Maxim, MaximConfig, MultiAxis
from .fit import fit
from .photographs import crops, psnr
from .trial import Trial

STEPS, NOISE = 120, 25 / 255


def model_of(*, blocks_alone: bool) -> Maxim:
    """One stage at one scale; what mixed across the grid mixes inside blocks instead where `blocks_alone`."""
    model = Maxim(MaximConfig(features=4, stages=1, scales=1))
    for part in list(model.modules()):
        if blocks_alone and isinstance(part, MultiAxis):
            part.grid = AxisGmlp(part.norm.normalized_shape[0], part.grid.side, grid=False)
        elif blocks_alone and isinstance(part, GatingWeights):
            part.grid = AxisDense(part.side, -2, bias=1.0)
    return model


def arm(*, blocks_alone: bool) -> Callable[[int], float]:
    """Training to take noise away."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model, generator = model_of(blocks_alone=blocks_alone), torch.Generator().manual_seed(seed)

        def noisy(truth: Tensor, drawn: torch.Generator) -> Tensor:
            return truth + NOISE * torch.randn(truth.shape, generator=drawn)

        def loss(_step: int) -> Tensor:
            truth = crops(4, 64, generator)
            return (model(noisy(truth, generator)) - truth).abs().mean()

        fit(model, loss, steps=STEPS)
        held = torch.Generator().manual_seed(10_000)
        truth = crops(24, 64, held, held=True)
        given = noisy(truth, held)
        with torch.no_grad():
            return psnr(model(given), truth) - psnr(given, truth)

    return run


TRIAL = Trial(
    claim="mixing across the picture and inside blocks takes more noise away than mixing inside blocks alone",
    measure="decibels over the noisy picture",
    higher_is_better=True,
    arms={"both": arm(blocks_alone=False), "blocks alone": arm(blocks_alone=True)},
    against=("blocks alone",),
    task=f"two photographs with noise of deviation 25 of 255, columns held out, 4 features, {STEPS} steps of 4 crops",
)
