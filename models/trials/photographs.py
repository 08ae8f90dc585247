"""Two photographs that come with scikit-learn: what small models of restoration learn, and the bicubic picture beside.

Shapes: B batch, Y X pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import MissingDependencyError
from .fit import fit

HELD = slice(240, 400)
"""Columns of the photographs, of 640, that are held out: half of the palace and of the flower."""


@cache
def photographs() -> Tensor:
    """(2, 3, 424, 640) from 0 to 1: a Chinese palace and a flower.

    Raises: MissingDependencyError: scikit-learn, which brings them, is not installed.
    """
    try:
        load = import_module("sklearn.datasets").load_sample_image
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the photographs come with scikit-learn: pip install 'outpace[train]'") from error
    both = torch.stack([torch.tensor(load(name)[:424]) for name in ("china.jpg", "flower.jpg")])
    return both.movedim(-1, 1).float() / 255


def crops(count: int, side: int, generator: torch.Generator, *, held: bool = False) -> Tensor:
    """(B, 3, side, side) from columns that are held out or from the others."""
    whole = photographs()
    # two parts of the same width to learn from
    pictures = whole[..., HELD] if held else torch.cat([whole[..., : HELD.start], whole[..., -HELD.start :]])
    which = torch.randint(len(pictures), (count,), generator=generator).tolist()
    tops = torch.randint(pictures.shape[2] - side, (count,), generator=generator).tolist()
    lefts = torch.randint(pictures.shape[3] - side, (count,), generator=generator).tolist()
    return torch.stack([pictures[i, :, y : y + side, x : x + side] for i, y, x in zip(which, tops, lefts, strict=True)])


def bicubic(x_BCYX: Tensor, factor: float) -> Tensor:
    """As many times larger or smaller, within 0 and 1."""
    return F.interpolate(x_BCYX, scale_factor=factor, mode="bicubic", antialias=factor < 1).clamp(0, 1)


class FromBicubic(nn.Module):
    """What a model adds to the bicubic picture; nothing at first."""

    def __init__(self, model: nn.Module, scale: int) -> None:
        super().__init__()
        self.model, self.scale = model, scale
        last = [part for part in model.modules() if isinstance(part, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        with torch.no_grad():
            self.register_buffer("nothing", model(torch.zeros(1, 3, 32, 32))[:, :, :1, :1])

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return bicubic(x_BCYX, self.scale) + self.model(x_BCYX) - self.get_buffer("nothing")


def psnr(found: Tensor, truth: Tensor) -> float:
    """Decibels, the mean over pictures with numbers from 0 to 1."""
    error = (found.clamp(0, 1) - truth).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


def enlarges(make: Callable[[], nn.Module], seed: int, *, steps: int, scale: int = 2) -> FromBicubic:
    """A model after training on crops of 32 x 32 pixels, enlarged."""
    torch.manual_seed(seed)
    model, generator = FromBicubic(make(), scale), torch.Generator().manual_seed(seed)

    def loss(_step: int) -> Tensor:
        truth = crops(4, 32 * scale, generator)
        return (model(bicubic(truth, 1 / scale)) - truth).abs().mean()

    fit(model, loss, steps=steps, rate=1e-3)
    return model


def gain_over_bicubic(make: Callable[[], nn.Module], seed: int, *, steps: int, scale: int = 2) -> float:
    """Decibels on parts of the photographs that were held out."""
    model = enlarges(make, seed, steps=steps, scale=scale)
    truth = crops(24, 32 * scale, torch.Generator().manual_seed(10_000), held=True)
    with torch.no_grad():
        small = bicubic(truth, 1 / scale)
        return psnr(model(small), truth) - psnr(bicubic(small, scale), truth)
