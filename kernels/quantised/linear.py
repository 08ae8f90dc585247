"""A linear layer on quantised weights, and on quantised inputs with whole-number products.

Shapes: D features in, O features out, G blocks of a row, W numbers of a block, N rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ..precision import widened
from .numbers import Quantised, quantise


def quantised_linear(
    x: Tensor,
    weight: Quantised,
    bias: Tensor | None = None,
    *,
    bits: int | None = None,
    symmetric: bool = False,
    power_of_two: bool = False,
) -> Tensor:
    """x W^T + b with W in codes and, with `bits`, x too: then every product of codes is a whole number, summed exactly
    (in float32, so rounded, on a device without float64).

    Shapes: x (..., D), weight (O, D) -> (..., O) of x's type.

    Args:
        weight: made by `quantise`; with one scale, or one for every block of a row.
        bits: of x's codes, in blocks as long as the weight's; x is left as it is where None.
        symmetric: whether x's codes are.
        power_of_two: whether x's scales are.

    Raises: ConfigError: shapes that do not fit together.
    """
    if weight.codes.ndim != 3 or x.ndim < 1 or x.shape[-1] != weight.features:
        raise ConfigError(
            f"a quantised linear layer takes x (..., in) and a weight (out, in), not {tuple(x.shape)} and "
            f"{(*weight.codes.shape[:-2], weight.features)}"
        )
    if bias is not None and tuple(bias.shape) != (weight.codes.shape[0],):
        raise ConfigError(f"the bias must have shape {(weight.codes.shape[0],)}, not {tuple(bias.shape)}")
    if bits is None:
        return F.linear(x, weight.dequantised().to(x.dtype), bias)
    whole = weight.scale.ndim == 2
    rows = quantise(
        x.reshape(-1, weight.features),
        bits=bits,
        block=None if whole else weight.block,
        symmetric=symmetric,
        power_of_two=power_of_two,
    )
    # float64 holds sums of products of 9-bit whole numbers exactly, for any width there is; float32 to 1e-7.
    left, right = widened(rows.integers()), widened(weight.integers())
    if whole:
        out = left.flatten(1) @ right.flatten(1).T * widened(rows.scale * weight.scale)
    else:
        out = left.new_zeros(len(left), len(right))
        for g in range(left.shape[1]):  # a block at a time: all of them at once would hold as many outputs
            scales = widened(rows.scale[:, g]) * widened(weight.scale[:, g]).T
            out = torch.addcmul(out, left[:, g] @ right[:, g].T, scales)
    out = out if bias is None else out + widened(bias)
    return out.to(x.dtype).view(*x.shape[:-1], -1)
