"""What models of pictures share: norms over channels, patches as tokens, drawing of initial weights.

Shapes: B batch, C channels, Y X grid, N patches, P numbers of a patch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, Y, X)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def into_patches(x_BCYX: Tensor, side: int) -> Tensor:
    """(B, N, P): square patches row by row, of each its pixels row by row with their channels together.

    Raises: ConfigError: patches do not fill the picture.
    """
    batch, channels, rows, columns = x_BCYX.shape
    if rows % side or columns % side:
        raise ConfigError(f"patches of {side} x {side} do not fill pictures of {rows} x {columns}; crop or pad them")
    cut = x_BCYX.reshape(batch, channels, rows // side, side, columns // side, side)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, side * side * channels)


def from_patches(x_BNP: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """(B, C, Y, X) back from its patches."""
    cut = x_BNP.reshape(len(x_BNP), size[0] // side, size[1] // side, side, side, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(len(x_BNP), -1, *size)


def drawn_normal(module: nn.Module, deviation: float = 0.02) -> None:
    """For `apply`: matrices and filters truncated normal, biases 0."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(module.weight, std=deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def tokens_of(x_BCYX: Tensor) -> Tensor:
    """(B, N, C)."""
    return x_BCYX.flatten(2).mT


def depthwise(channels: int, width: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution of every channel by its own filter, on a grid that keeps its size."""
    return nn.Conv2d(channels, channels, width, padding=width // 2, groups=channels, bias=bias)


def reflected(x_BCYX: Tensor, multiple: int) -> Tensor:
    """Padded at the ends by reflection until sides are multiples."""
    rows, columns = x_BCYX.shape[2:]
    return F.pad(x_BCYX, (0, -columns % multiple, 0, -rows % multiple), mode="reflect")
