"""Haar's wavelets: every square of four pixels as its mean and its three differences.

Shapes: B batch, C channels, Y X picture, both even.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError


def haar(x: Tensor) -> Tensor:
    """(B, 4C, Y/2, X/2): sums, differences down, across, and along the diagonal, each half; energy is kept.

    Raises: ConfigError: not pictures of real numbers with even sides.

    >>> import torch
    >>> haar(torch.tensor([[[[1.0, 1.0], [3.0, 3.0]]]])).flatten().tolist()
    [4.0, -2.0, 0.0, 0.0]
    """
    if x.ndim != 4 or not x.is_floating_point() or x.shape[2] % 2 or x.shape[3] % 2:
        raise ConfigError(
            f"pictures (batch, channels, rows, columns) have real numbers and even sides, not {tuple(x.shape)} of "
            f"{x.dtype}"
        )
    return _mixed(*(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)))


def inverse_haar(bands: Tensor) -> Tensor:
    """Pictures (B, C, Y, X) from what `haar` gave.

    Raises: ConfigError: not four bands a channel.
    """
    if bands.ndim != 4 or bands.shape[1] % 4 or not bands.is_floating_point():
        raise ConfigError(f"there are four bands of real numbers a channel, not {tuple(bands.shape)} of {bands.dtype}")
    pixels = _mixed(*bands.chunk(4, 1)).unflatten(1, (2, 2, -1))  # its own inverse
    return pixels.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


def _mixed(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    above, across, below, athwart = a + b, a - b, c + d, c - d  # each is needed twice
    return torch.cat([above + below, above - below, across + athwart, across - athwart], 1).mul_(0.5)
