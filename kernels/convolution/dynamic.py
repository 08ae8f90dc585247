"""Depthwise convolution whose filters differ from pixel to pixel.

Source: Li et al., 2023, arXiv:2301.02031; Han et al., 2022, arXiv:2106.04263.
Shapes: B batch, C channels, Y X grid, G groups of channels with one filter, K odd width of a filter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ..inputs import check_one_type


def dynamic_depthwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """y[c, y, x] = sum over i, j of weight[g(c), i, j, y, x] x[c, y + i - K/2, x + j - K/2], 0 outside.

    Shapes: x (B, C, Y, X), weight (B, G, K, K, Y, X), C a multiple of G -> (B, C, Y, X).

    Raises: ConfigError: shapes that do not fit together, or an even K.
    """
    _check(x, weight)
    batch, channels, rows, columns = x.shape
    groups, width = weight.shape[1:3]
    padded = F.pad(x, [width // 2] * 4).unflatten(1, (groups, channels // groups))
    out = x.new_zeros(batch, groups, channels // groups, rows, columns)
    for i in range(width):  # a shift at a time: unfolding would hold K * K copies of x
        for j in range(width):
            out = torch.addcmul(out, padded[..., i : i + rows, j : j + columns], weight[:, :, None, i, j])
    return out.flatten(1, 2)


def reference_dynamic_depthwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """The same pixel by pixel, float64."""
    channels, rows, columns = x.shape[1:]
    groups, width = weight.shape[1:3]
    padded, out = F.pad(x.double(), [width // 2] * 4), torch.zeros(x.shape, dtype=torch.float64)
    for c in range(channels):
        for row in range(rows):
            for column in range(columns):
                seen = padded[:, c, row : row + width, column : column + width]
                out[:, c, row, column] = (seen * weight[:, c * groups // channels, :, :, row, column]).sum((1, 2))
    return out


def _check(x: Tensor, weight: Tensor) -> None:
    if (
        x.ndim != 4
        or weight.ndim != 6
        or weight.shape[0] != x.shape[0]
        or weight.shape[4:] != x.shape[2:]
        or weight.shape[1] < 1
        or x.shape[1] % weight.shape[1]
        or weight.shape[2] != weight.shape[3]
        or weight.shape[2] % 2 == 0
    ):
        raise ConfigError(
            "a dynamic depthwise convolution takes x (batch, channels, rows, columns) and filters (batch, groups, "
            f"width, width, rows, columns), channels a multiple of groups, width odd, not {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    check_one_type("a dynamic depthwise convolution", x=x, weight=weight)
