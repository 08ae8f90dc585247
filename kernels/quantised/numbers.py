"""A tensor as integers of a few bits and a scale: one for all of it, or one for every few numbers of a row.

Shapes: F features (the last dimension), G blocks of a row, W numbers of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantised:
    """(codes - zero) * scale."""

    codes: Tensor
    """int8 (..., G, W); the last block is filled up with `zero`."""
    scale: Tensor
    """(..., G, 1), or (1, 1) for the whole tensor."""
    zero: Tensor
    """The code of 0, an integer, shaped as `scale`."""
    features: int
    """F."""
    bits: int
    """Of a code."""

    @property
    def block(self) -> int:
        """W; F where the whole tensor has one scale."""
        return self.codes.shape[-1]

    def integers(self) -> Tensor:
        """codes - zero, of the scale's type: whole numbers up to 2^bits."""
        return self.codes.to(self.scale.dtype) - self.zero.to(self.scale.dtype)

    def dequantised(self) -> Tensor:
        """What the codes stand for, of the scale's type."""
        return (self.integers() * self.scale).flatten(-2)[..., : self.features]

    def bits_a_number(self, *, scale_bits: int = 16) -> float:
        """With the scales, of `scale_bits` each."""
        return self.bits + scale_bits * self.scale.numel() / max(1, self.codes.numel())


def quantise(
    x: Tensor,
    *,
    bits: int = 8,
    block: int | None = None,
    symmetric: bool = True,
    power_of_two: bool = False,
    scale_type: torch.dtype | None = None,
) -> Quantised:
    """Round to the nearest code, the largest of the tensor or block being the largest code.

    Args:
        bits: of a code, 2 to 8.
        block: numbers along the last dimension that share a scale; the whole tensor where None.
        symmetric: 0 has code 0; otherwise codes span from the least to the largest number, 0 included.
        power_of_two: scales are rounded up to powers of two, so that multiplying by them is a shift.
        scale_type: scales are rounded to what this type can hold, before codes are made: they may be stored in it.

    Raises: ConfigError: bits or block out of range, x empty or not floating-point, or `scale_type` not floating-point.

    >>> quantise(torch.tensor([0.0, 0.5, -1.0])).codes
    tensor([[   0,   64, -127]], dtype=torch.int8)
    """
    if not 2 <= bits <= 8:
        raise ConfigError(f"codes have 2 to 8 bits, not {bits}")
    if block is not None and block < 1:
        raise ConfigError(f"a block has at least 1 number, not {block}")
    if not x.is_floating_point() or x.ndim < 1 or x.numel() == 0:
        raise ConfigError(
            f"only floating-point tensors that are not empty are quantised, not {tuple(x.shape)} {x.dtype}"
        )
    if scale_type is not None and not scale_type.is_floating_point:
        raise ConfigError(f"scales are of a floating-point type, not {scale_type}")
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    width = x.shape[-1] if block is None else min(block, x.shape[-1])
    parts = F.pad(x, (0, -x.shape[-1] % width)).unflatten(-1, (-1, width))
    low, high = (parts.amin(), parts.amax()) if block is None else (parts.amin(-1, True), parts.amax(-1, True))
    low, high = low.clamp(max=0), high.clamp(min=0)
    low, high = (end[None, None] if block is None else end for end in (low, high))
    if symmetric:
        largest = 2 ** (bits - 1) - 1
        scale, least = torch.maximum(high, -low) / largest, -largest
    else:
        scale, least, largest = (high - low) / (2**bits - 1), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = scale.where(scale > 0, scale.new_ones(()))
    if power_of_two:
        scale = torch.exp2(scale.log2().ceil())
    if scale_type is not None:
        scale = scale.to(scale_type).to(x.dtype)
        scale = scale.where(scale > 0, scale.new_ones(()))
    zero = torch.zeros_like(scale) if symmetric else (least - low / scale).round().clamp(least, largest)
    codes = (parts / scale).round().add(zero).clamp(least, largest)
    return Quantised(codes=codes.to(torch.int8), scale=scale, zero=zero.to(torch.int8), features=x.shape[-1], bits=bits)
