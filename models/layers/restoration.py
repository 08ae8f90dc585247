"""What models that restore pictures share: the gated convolutional network, shuffled pixels, the mean colour.

Source: Zamir et al., 2022, arXiv:2111.09881 (the gated network); Shi et al., 2016, arXiv:1609.05158 (shuffling).
Shapes: B batch, C channels, Y X grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pictures import depthwise

MEAN_COLOUR = (0.4488, 0.4371, 0.4040)
"""Of DIV2K, in [0, 1]."""


class GatedConvNetwork(nn.Module):
    """1x1 to two halves, 3x3 depthwise, GELU of one times the other, 1x1: no biases."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.mix = depthwise(2 * hidden, 3, bias=False)
        self.down = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        gate, value = self.mix(self.up(x_BCYX)).chunk(2, 1)
        return self.down(F.gelu(gate) * value)


class Residual(nn.Sequential):
    """Layers one after the other, and what went in added."""

    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


class Upsampler(nn.Sequential):
    """A convolution to every pixel of the larger picture, and these in their places."""

    def __init__(self, channels: int, scale: int, colours: int = 3) -> None:
        super().__init__(nn.Conv2d(channels, colours * scale**2, 3, padding=1), nn.PixelShuffle(scale))


def mean_colour(like: Tensor) -> Tensor:
    """(1, 3, 1, 1) of the type and on the device of `like`."""
    return torch.tensor(MEAN_COLOUR, dtype=like.dtype, device=like.device).reshape(1, 3, 1, 1)
