"""NiNformer: a small MLP-Mixer inside each block makes the gate that takes the place of attention.

Source: Abdullah and Ahmed, 2024, arXiv:2403.02411.
Shapes: B batch, C channels, Y X grid, N tokens, D width, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.feed_forward.axis_mix import axis_mix
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.pictures import tokens_of
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class NinformerConfig:
    """Sizes of a NiNformer; the defaults are the paper's."""

    picture: int = 32
    """Pixels of a side: fixed, since tokens are mixed by a matrix."""
    patch: int = 4
    """Pixels of a side of a token."""
    channels: int = 3
    """Of a picture."""
    width: int = 256
    """Of the residual stream."""
    hidden: int = 512
    """Units of the networks over tokens and over channels."""
    layers: int = 4
    """Blocks."""
    dropout: float = 0.5
    """Share of numbers dropped in training."""
    classes: int = 10
    """Logits."""

    def __post_init__(self) -> None:
        check_sizes(self)
        check_divides("pixels of a side over patches", self.picture, self.patch)
        if not self.dropout < 1:
            raise ConfigError(f"dropout of a NiNformer must be in [0, 1), not {self.dropout}")


class AxisNetwork(nn.Module):
    """Two dense layers with a GELU between, along one axis."""

    def __init__(self, width: int, hidden: int, *, axis: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down, self.drop = nn.Linear(width, hidden), nn.Linear(hidden, width), nn.Dropout(dropout)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(F.gelu(axis_mix(x, self.up.weight, self.up.bias, axis=self.axis)))
        return self.drop(axis_mix(h, self.down.weight, self.down.bias, axis=self.axis))


class InnerMixer(nn.Module):
    """A block of an MLP-Mixer: over tokens, then over channels."""

    def __init__(self, tokens: int, config: NinformerConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.tokens = AxisNetwork(tokens, config.hidden, axis=-2, dropout=config.dropout)
        self.channels = AxisNetwork(config.width, config.hidden, axis=-1, dropout=config.dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        x = x_BND + self.tokens(self.norm1(x_BND))
        return x + self.channels(self.norm2(x))


class NinformerBlock(nn.Module):
    """x + (W norm x + b) * mixer(norm x), then a feed-forward network behind the same norm."""

    def __init__(self, tokens: int, config: NinformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)  # one norm for both halves, as in the published code
        self.mixer = InnerMixer(tokens, config)
        self.value = nn.Linear(config.width, config.width)
        self.feed_forward = AxisNetwork(config.width, config.hidden, axis=-1, dropout=config.dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        h = self.norm(x_BND)
        x = x_BND + self.value(h) * self.mixer(h)
        return x + self.feed_forward(self.norm(x))


class Ninformer(nn.Module):
    """Logits from pictures (B, C, Y, X) of the size it was built for.

    >>> model = Ninformer(NinformerConfig(picture=8, width=8, hidden=16, layers=2))
    >>> import torch
    >>> model(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, config: NinformerConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(config.channels, config.width, config.patch, config.patch)
        tokens = (config.picture // config.patch) ** 2
        self.blocks = nn.Sequential(*(NinformerBlock(tokens, config) for _ in range(config.layers)))
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, classes)."""
        return self.head(self.blocks(tokens_of(self.patch(x_BCYX))).mean(1))


NINFORMER = MODELS.add(
    "ninformer",
    Companion(
        title="NiNformer: A Network in Network Transformer with Token Mixing Generated Gating Function",
        source="Abdullah and Ahmed, 2024, arXiv:2403.02411",
        summary="attention's place is taken by a gate that an inner MLP-Mixer makes",
        build=Ninformer,
        sizes={
            "cifar10": Size(config=NinformerConfig(), parameters=2_652_170, said="not said"),
            "cifar100": Size(config=NinformerConfig(classes=100), parameters=2_675_300, said="not said"),
        },
        config=NinformerConfig,
        toy=NinformerConfig(picture=8, width=8, hidden=16, layers=2),
        example=lambda config: (picture_batch(config.picture, channels=config.channels),),
        done=("the model with its shared norm",),
        left_out=("the variants with Fourier and short convolution gates", "training on CIFAR"),
        claim="a gate made by token mixing is better than token mixing alone and than attention",
        limits=("the number of tokens is fixed", "it has twice the parameters of a Mixer of its width and depth"),
    ),
)
