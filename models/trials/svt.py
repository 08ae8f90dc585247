"""SVT's mechanism in small: energy of the bands while a shape moves by a pixel at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...kernels.wavelets import dual_tree, haar
from .trial import Trial

SIDE, SHIFTS, SHAPES = 64, 8, 16


def spread(energy: Callable[[Tensor], Tensor]) -> Callable[[int], float]:
    """Deviation of a band energy over shifts, as a share of its mean: the mean over boxes drawn by the seed."""

    def run(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        pictures = torch.zeros(SHAPES, SHIFTS, SIDE, SIDE)
        for shape in range(SHAPES):
            height, width = torch.randint(8, 28, (2,), generator=generator).tolist()
            top, left = torch.randint(10, 18, (2,), generator=generator).tolist()
            for shift in range(SHIFTS):
                pictures[shape, shift, top : top + height, left + shift : left + shift + width] = 1.0
        found = energy(pictures.flatten(0, 1)[:, None]).view(SHAPES, SHIFTS)
        return float((found.std(1, correction=0) / found.mean(1)).mean())

    return run


def of_bands(x: Tensor) -> Tensor:
    """(B): of the bands that edges across the direction of the shift have most energy in."""
    return dual_tree(x)[1][:, :, 2:4].abs().square().sum((1, 2, 3, 4))


def of_haar(x: Tensor) -> Tensor:
    """(B): of the differences across, which hold those edges in a plain wavelet transform."""
    return haar(x)[:, 2].square().sum((1, 2))


TRIAL = Trial(
    claim="the energy of its bands changes less as a shape moves by a pixel than that of a plain wavelet",
    measure="deviation over shifts as a share of the mean",
    higher_is_better=False,
    arms={"dual tree": spread(of_bands), "Haar": spread(of_haar)},
    against=("Haar",),
    task=f"boxes of {SHAPES} sizes and places on {SIDE} x {SIDE} pixels, moved across by 0 to {SHIFTS - 1} pixels",
)
