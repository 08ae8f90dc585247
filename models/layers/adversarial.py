"""Layers of the StyleGAN family: weights of deviation 1 that are scaled as they are used, and filtered resampling.

Source: Karras et al., 2020, arXiv:1912.04958 (StyleGAN 2).
Shapes: B batch, C channels, Y X grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError

FIR = (1.0, 3.0, 3.0, 1.0)
"""Taps of the family's low pass."""


class ScaledLinear(nn.Module):
    """A matrix drawn with deviation 1 / rate and used at rate / sqrt(inputs): so it learns at `rate` times the pace."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0) -> None:
        super().__init__()
        self.rate, self.scale = rate, rate * inputs**-0.5
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class ScaledConv(nn.Module):
    """A convolution drawn with deviation 1, then a leaky ReLU that keeps the size of numbers; it may halve the grid."""

    def __init__(self, channels: int, out: int, width: int, *, halves: bool = False) -> None:
        super().__init__()
        self.halves, self.scale = halves, (channels * width**2) ** -0.5
        self.weight = nn.Parameter(torch.randn(out, channels, width, width))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        width = self.weight.shape[-1]
        if self.halves:
            x_BCYX = resampled(x_BCYX, FIR, pad=(2, 2))
        step, around = (2, 0) if self.halves else (1, width // 2)
        x = F.conv2d(x_BCYX, self.weight * self.scale, self.bias, step, around)
        return F.leaky_relu(x, 0.2) * 2**0.5


def resampled(
    x_BCYX: Tensor, taps: tuple[float, ...], *, up: int = 1, down: int = 1, pad: tuple[int, int] | None = None
) -> Tensor:
    """Zeros between pixels, a low pass along both axes whose gain makes up for them, then every `down`-th pixel.

    Args:
        taps: of the low pass, scaled to a sum of 1.
        up: how many times as many pixels.
        down: how many times fewer.
        pad: zeros before and after; so that sides become exactly `up / down` times as long where None.

    Raises: ConfigError: both up and down, or neither of them positive.

    >>> resampled(torch.ones(1, 1, 8, 8), FIR, up=2).shape, resampled(torch.ones(1, 1, 8, 8), FIR, down=2).shape
    (torch.Size([1, 1, 16, 16]), torch.Size([1, 1, 4, 4]))
    """
    if min(up, down) != 1 or x_BCYX.ndim != 4:
        raise ConfigError(f"pictures (B, C, Y, X) are resampled up or down, not {tuple(x_BCYX.shape)} by {up}/{down}")
    channels, size = x_BCYX.shape[1], x_BCYX.shape[2:]
    spare = len(taps) - max(up, down)
    before, after = ((spare + 1) // 2 + up - 1, spare // 2) if pad is None else pad
    if up > 1:
        spread = x_BCYX.new_zeros(*x_BCYX.shape[:2], size[0], up, size[1], up)
        spread[:, :, :, 0, :, 0] = x_BCYX
        x_BCYX = spread.flatten(4, 5).flatten(2, 3)
    low = x_BCYX.new_tensor(taps)
    low = low / low.sum() * up
    x = F.pad(x_BCYX, (before, after, before, after))
    x = F.conv2d(x, low.view(1, 1, -1, 1).expand(channels, 1, -1, 1), stride=(down, 1), groups=channels)
    return F.conv2d(x, low.view(1, 1, 1, -1).expand(channels, 1, 1, -1), stride=(1, down), groups=channels)
