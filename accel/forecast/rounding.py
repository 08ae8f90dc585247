"""What rounding to half precision adds to the errors that are measured between steps.

Every block writes its tokens in their type, and what is lost there is another number at every step: to a forecast it
looks like an error that no step before could have told. It is as large as bfloat16 is coarse, known beforehand, and
independent of what a forecast misses, so that it is taken off in quadrature. In float32 there is nothing to take off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import nn

COARSE = (torch.bfloat16, torch.float16)
"""Types whose rounding is seen."""

ONE_ROUNDING = math.sqrt(2.0 / math.pi * 3.0 / (8.0 * math.log(2.0)) / 12.0)
"""Mean size of what several roundings add up to, over the size of the numbers, the type's eps and the root of their
count. A rounding error is uniform over the spacing of numbers, whose square over the number's is 3 / (8 ln 2) eps^2 on
average where the leading digits are distributed as Benford's law has it; sums of them are normal."""

LAYER = re.compile(r"(img_|self_|cross_)?(attn|attention|ff|ffn|mlp|feed_forward)\d*")
"""Names, in a block, of layers whose results are added to the picture's tokens."""

LEAST = 0.25
"""At least so much of a measured error stays: what is counted is an estimate, and an order without any error would be
taken for ever."""


def noise_of(dtype: torch.dtype, sizes: Sequence[float], additions: Sequence[int]) -> float:
    """Mean error that rounding leaves in the last block's output, relative to its mean size; 0 where none is seen.

    Counted is one rounding wherever a block adds to its tokens; inside of layers there is more, which is smaller.

    Args:
        sizes: mean absolute values of the tokens behind every block, in order.
        additions: for each block, how often it adds to them (`residual_additions`).
    """
    if dtype not in COARSE or not sizes or not sizes[-1] > 0 or not all(math.isfinite(size) for size in sizes):
        return 0.0
    squares = sum(count * (size / sizes[-1]) ** 2 for size, count in zip(sizes, additions, strict=True))
    return ONE_ROUNDING * torch.finfo(dtype).eps * math.sqrt(squares)


def residual_additions(block: nn.Module) -> int:
    """How often a block adds to the picture's tokens: once for each attention and feed-forward layer that it holds.

    Fused blocks, whose feed-forward matrices are those of attention, add once. Found by the names that diffusers gives
    such layers; 1 where none is found.
    """
    layers = [name for name, layer in block.named_children() if LAYER.fullmatch(name) and any(layer.children())]
    return max(1, len(layers))


def without_rounding(error: float, noise: float, weights: Sequence[float]) -> float:
    """What is left of the relative error of a forecast when the rounding in it is taken off.

    Args:
        error: as it was measured, sum_j weights[j] * values[j] against the truth, all of them rounded.
        noise: of each of these values, relative to their size.
    """
    if not noise or not math.isfinite(error):
        return error
    rounded = noise * noise * (1.0 + sum(weight * weight for weight in weights))
    return max(math.sqrt(max(error * error - rounded, 0.0)), LEAST * error)
