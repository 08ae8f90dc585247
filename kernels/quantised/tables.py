"""GELU, softmax and LayerNorm of codes, by whole numbers, shifts and small tables.

They take codes whose scales are powers of two, which `quantise(..., power_of_two=True)` makes, and give such codes.
float64 holds every whole number here exactly; a device would take 32 or 64 bits of its own. On a device without float64
float32 stands for it, where now and then a code comes out one step off.

Shapes: R rows, G blocks of a row, W numbers of a block, F features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ..precision import widened
from .numbers import Quantised, quantise

ALIGNED_BITS = 12
"""How far below the coarsest block of a row others keep their digits when shifts are made equal."""
EXP_STEP_BITS, EXP_ENTRIES = 6, 1024
"""The table of exp(-t): steps of 2^-6 down to exp(-16), as whole numbers of 16 bits."""
ROOT_ENTRIES = 1024
"""Of the table of 1 / sqrt over [1, 4)."""
FUNCTIONS = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}
"""None puts out more than it takes in, so that the scales of the inputs are enough for the outputs."""


def table_activation(x: Quantised, *, activation: str = "gelu") -> Quantised:
    """An activation code by code, from one table of 255 codes for every scale: within half a step of the exact one.

    Raises: ConfigError: an unknown activation, or scales that are not powers of two.
    """
    if activation not in FUNCTIONS:
        raise ConfigError(f"activations by table are {', '.join(FUNCTIONS)}, not '{activation}'")
    _check(x)
    scales, places = x.scale.unique(return_inverse=True)
    scales = widened(scales)
    entries = torch.arange(-127, 128, dtype=scales.dtype, device=scales.device) * scales[:, None]
    tables = (FUNCTIONS[activation](entries) / scales[:, None]).round().clamp(-127, 127).to(torch.int8)
    codes = tables[places.expand(x.codes.shape), x.codes.long() + 127]
    return Quantised(codes=codes, scale=x.scale, zero=x.zero, features=x.features, bits=8)


def table_softmax(x: Quantised, *, allowed: Tensor | None = None, block: int | None = None) -> Quantised:
    """Softmax along the features: the largest is subtracted, exp comes from a table, sums are whole numbers.

    Shapes: x of (..., F) -> codes of (..., F).

    Args:
        allowed: bool, broadcasts to (..., F); elsewhere the weight is 0, and 0 everywhere where there is none.
        block: of the codes that come out; one scale for all of them where None.

    Raises: ConfigError: scales that are not powers of two.
    """
    _check(x)
    whole, scale = _aligned(x)
    allowed = torch.ones_like(whole, dtype=torch.bool) if allowed is None else allowed.expand_as(whole)
    largest = whole.masked_fill(~allowed, -torch.inf).amax(-1, keepdim=True)
    below = ((largest - whole) * scale * 2**EXP_STEP_BITS).round()  # a shift
    table = torch.exp(-torch.arange(EXP_ENTRIES, dtype=whole.dtype, device=whole.device) / 2**EXP_STEP_BITS)
    table = (table * (2**16 - 1)).round()
    numerators = torch.where(
        allowed & (below < EXP_ENTRIES), table[below.nan_to_num(0).clamp(0, EXP_ENTRIES - 1).long()], 0.0
    )
    return quantise(numerators / numerators.sum(-1, keepdim=True).clamp(min=1), block=block, power_of_two=True)


def table_layer_norm(
    x: Quantised, weight_F: Tensor, bias_F: Tensor, *, eps: float = 1e-5, block: int | None = None
) -> Quantised:
    """LayerNorm along the features: mean and variance are sums of whole numbers, 1 / sqrt comes from a table.

    Raises: ConfigError: a weight or bias of another shape, or scales that are not powers of two.
    """
    _check(x)
    if tuple(weight_F.shape) != (x.features,) or tuple(bias_F.shape) != (x.features,):
        raise ConfigError(
            f"weight and bias of this LayerNorm must have shape {(x.features,)}, not {tuple(weight_F.shape)} and "
            f"{tuple(bias_F.shape)}"
        )
    whole, scale = _aligned(x)
    centred = x.features * whole - whole.sum(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / x.features + eps * (x.features / scale) ** 2
    exponent = (variance.log2() / 2).floor()
    mantissa = variance * 4.0**-exponent  # in [1, 4)
    places = torch.arange(ROOT_ENTRIES, dtype=whole.dtype, device=whole.device)
    table = (2**16 / (1 + 3 * (places + 0.5) / ROOT_ENTRIES).sqrt()).round()
    root = table[((mantissa - 1) * ROOT_ENTRIES / 3).floor().clamp(0, ROOT_ENTRIES - 1).long()]
    normal = centred * root * 2.0 ** -(16 + exponent)
    return quantise(normal * widened(weight_F) + widened(bias_F), block=block, power_of_two=True)


def _aligned(x: Quantised) -> tuple[Tensor, Tensor]:
    """Whole numbers (..., F) in the widest type and the scale (..., 1) that all blocks of a row now share."""
    codes = widened(x.codes)
    scale = widened(x.scale).expand(*x.codes.shape[:-1], 1)
    used = scale.masked_fill(~(codes != 0).any(-1, keepdim=True), 0)
    coarsest = used.amax(-2, keepdim=True)
    coarsest = coarsest.where(coarsest > 0, torch.ones_like(coarsest))
    finest = used.where(used > 0, coarsest).amin(-2, keepdim=True).maximum(coarsest * 2.0**-ALIGNED_BITS)
    whole = (codes * (scale / finest)).round()
    return whole.flatten(-2)[..., : x.features], finest[..., 0]


def _check(x: Quantised) -> None:
    """Raises: ConfigError: codes that no table here can take."""
    if bool((x.zero != 0).any()) or not torch.equal(x.scale.log2(), x.scale.log2().round()):
        raise ConfigError(
            "tables take symmetric codes with powers of two as scales; quantise with symmetric=True, power_of_two=True"
        )
