"""Activator: a normalised gated unit takes the place of attention.

Source: Abdullah and Ahmed, 2024, arXiv:2405.15953.
Shapes: B batch, C channels, Y X grid, N tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .companion import MODELS, Companion, Size, check_sizes
from .layers.pictures import tokens_of
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivatorConfig:
    """Sizes of an Activator; the defaults are the paper's."""

    patch: int = 4
    """Pixels of a side of a token."""
    channels: int = 3
    """Of a picture."""
    width: int = 256
    """Of the residual stream."""
    hidden: int = 512
    """Units of the gated unit and of the feed-forward network."""
    layers: int = 4
    """Blocks."""
    feed_forward: bool = True
    """Whether blocks have a feed-forward network; without it they are gated units only."""
    dropout: float = 0.5
    """Share of numbers dropped in training."""
    classes: int = 10
    """Logits."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if not self.dropout < 1:
            raise ConfigError(f"dropout of an Activator must be in [0, 1), not {self.dropout}")


class GatedUnit(nn.Module):
    """W3 (norm(GELU(W1 x)) * norm(W2 x)): GEGLU with one norm for both factors."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.value, self.out = (
            nn.Linear(width, hidden),
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
        )
        self.norm: nn.Module = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(F.gelu(self.gate(x))) * self.norm(self.value(x)))


class ActivatorBlock(nn.Module):
    """A gated unit, then a feed-forward network behind the same norm."""

    def __init__(self, config: ActivatorConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden
        self.norm, self.unit = nn.LayerNorm(width), GatedUnit(width, hidden)
        drop = nn.Dropout(config.dropout)
        network = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), drop, nn.Linear(hidden, width), drop)
        self.feed_forward = network if config.feed_forward else None

    def forward(self, x_BND: Tensor) -> Tensor:
        x = x_BND + self.unit(self.norm(x_BND))
        return x if self.feed_forward is None else x + self.feed_forward(self.norm(x))


class Activator(nn.Module):
    """Logits from pictures (B, C, Y, X), sides multiples of the patch.

    >>> model = Activator(ActivatorConfig(width=8, hidden=16, layers=2))
    >>> import torch
    >>> model(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, config: ActivatorConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(config.channels, config.width, config.patch, config.patch)
        self.blocks = nn.Sequential(*(ActivatorBlock(config) for _ in range(config.layers)))
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, classes)."""
        return self.head(self.blocks(tokens_of(self.patch(x_BCYX))).mean(1))


def _size(parameters: int, *, classes: int = 10, feed_forward: bool = True) -> Size:
    config = ActivatorConfig(classes=classes, feed_forward=feed_forward)
    return Size(config=config, parameters=parameters, said="not said")


ACTIVATOR = MODELS.add(
    "activator",
    Companion(
        title="Activator: GLU Activation Function as the Core Component of a Vision Transformer",
        source="Abdullah and Ahmed, 2024, arXiv:2405.15953",
        summary="a normalised GEGLU where a vision transformer has attention",
        build=Activator,
        sizes={
            "cifar10": _size(2_650_890),
            "cifar100": _size(2_674_020, classes=100),
            "cifar10-unit-only": _size(1_599_242, feed_forward=False),
            "cifar100-unit-only": _size(1_622_372, feed_forward=False, classes=100),
        },
        config=ActivatorConfig,
        toy=ActivatorConfig(width=8, hidden=16, layers=2),
        example=lambda config: (picture_batch(4 * config.patch, channels=config.channels),),
        done=("the model, with and without the feed-forward network",),
        left_out=("training on CIFAR",),
        claim="a gated unit in the place of attention is better than a vision transformer",
        limits=(
            "no token sees another and none knows where it is: a bag of patches, whose logits stay the same in any "
            "order of them; the paper's win is over a transformer that behaves as if it had no positions either",
        ),
    ),
)
