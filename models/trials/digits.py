"""Handwritten digits of 8 x 8 pixels: what small vision models learn, and the transformer beside them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import MissingDependencyError
from ..layers.pictures import into_patches
from ..predformer import GatedBlock, PredFormerConfig
from .fit import fit

TEST = 360
"""Digits held out, of 1797."""


@cache
def digits() -> tuple[Tensor, Tensor]:
    """(pictures (1797, 1, 8, 8) from 0 to 1, classes), in an order drawn once.

    Raises: MissingDependencyError: scikit-learn, which brings them, is not installed.
    """
    try:
        data = import_module("sklearn.datasets").load_digits()
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the digits come with scikit-learn: pip install 'outpace[train]'") from error
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.images, dtype=torch.float32)[order, None] / 16, torch.tensor(data.target)[order]


def teach_digits(model: nn.Module, seed: int, *, steps: int, rate: float = 2e-3) -> None:
    """Train a model to name the digits that are not held out, in batches of 64 drawn from a seed."""
    generator, (pictures, classes) = torch.Generator().manual_seed(seed), digits()

    def loss(_step: int) -> Tensor:
        chosen = torch.randint(TEST, len(classes), (64,), generator=generator)
        return F.cross_entropy(model(pictures[chosen]), classes[chosen])

    fit(model, loss, steps=steps, rate=rate)


def digit_accuracy(make: Callable[[], nn.Module], seed: int, *, steps: int, rate: float = 2e-3) -> float:
    """Share of held-out digits named right, after training on the others."""
    torch.manual_seed(seed)
    model, (pictures, classes) = make(), digits()
    teach_digits(model, seed, steps=steps, rate=rate)
    with torch.no_grad():
        return float((model(pictures[:TEST]).argmax(-1) == classes[:TEST]).float().mean())


class DigitTransformer(nn.Module):
    """A plain vision transformer on patches of 2 x 2, with learned positions or none."""

    def __init__(self, *, width: int, layers: int, positions: bool) -> None:
        super().__init__()
        config = PredFormerConfig(width=width, heads=4, expansion=2)
        self.embed = nn.Linear(4, width)
        self.positions = nn.Parameter(torch.randn(1, 16, width) * 0.02) if positions else None
        self.blocks = nn.Sequential(*(GatedBlock(config) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x = self.embed(into_patches(x_BCYX, 2))
        x = x if self.positions is None else x + self.positions
        return self.head(self.blocks(x).mean(1))
