"""What holds exactly for BCT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.quantised import quantise, quantised_linear, table_activation, table_layer_norm, table_softmax
from ..bct import BlockwiseConfig, blockwise, compression
from ..companion import check


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def encoder(*, norm_first: bool = False) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        32, 4, 64, activation="gelu", batch_first=True, norm_first=norm_first, dtype=torch.float64
    )
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


def apart(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@check("bct", "a block times a power of two has the same codes, its scale that power larger")
def shifts() -> float:
    x = numbers(5, 40)
    one, other = (quantise(part, block=16, power_of_two=True) for part in (x, x * 2.0**-9))
    return float((one.codes != other.codes).sum() + (one.scale * 2.0**-9 - other.scale).abs().sum())


@check("bct", "what codes stand for has these codes again")
def again() -> float:
    once = quantise(numbers(50, 30), block=8, power_of_two=True).dequantised()
    return float((quantise(once, block=8, power_of_two=True).dequantised() - once).abs().max())


@check("bct", "products of codes are the products of what they stand for", at_most=1e-12)
def products() -> float:
    x, weight = numbers(7, 48), quantise(numbers(9, 48, seed=1), bits=4, block=16, power_of_two=True)
    rows = quantise(x, block=16, power_of_two=True).dequantised()
    found = quantised_linear(x, weight, bits=8, symmetric=True, power_of_two=True)
    return float((found - rows @ weight.dequantised().T).abs().max())


@check("bct", "GELU by table is within half a step of GELU of what the codes stand for", at_most=0.5)
def gelu() -> float:
    x = quantise(numbers(6, 64) * torch.tensor([1e-3, 1.0, 30.0]).repeat(2)[:, None], block=16, power_of_two=True)
    found = table_activation(x)
    steps = (found.dequantised() - F.gelu(x.dequantised())).unflatten(-1, (-1, 16)) / x.scale
    return float(steps.abs().max())


@check("bct", "softmax by table is within 1.5 % of the largest weight, and 0 where nothing is allowed", at_most=0.015)
def softmax() -> float:
    x = quantise(numbers(8, 60) * 4, block=16, power_of_two=True)
    allowed = numbers(8, 60, seed=2) > -1
    allowed[3] = False
    found = table_softmax(x, allowed=allowed, block=16).dequantised()
    exact = x.dequantised().masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num(0)
    inside = (found - exact).abs().amax(-1) / exact.amax(-1).clamp(min=1e-9)
    return float(inside.max() + found[~allowed].abs().sum())


@check("bct", "LayerNorm by table is within 1.5 % of LayerNorm of what the codes stand for", at_most=0.015)
def layer_norm() -> float:
    x = quantise(numbers(8, 96) * 2.0 ** numbers(8, 1, seed=3).mul(6), block=32, power_of_two=True)
    weight, bias = 1 + 0.1 * numbers(96, seed=1), 0.1 * numbers(96, seed=2)
    found = table_layer_norm(x, weight, bias, eps=0.0, block=32).dequantised()
    return apart(found, F.layer_norm(x.dequantised(), (96,), weight, bias, 0.0))


@check("bct", "an encoder in 8 bits gives torch's output to 5 %, and 4 bits err more", at_most=0.05)
@torch.no_grad()
def whole() -> float:
    x, worst = numbers(2, 9, 32), 0.0
    for norm_first in (False, True):
        model = encoder(norm_first=norm_first)
        eight, four = (
            apart(blockwise(model, BlockwiseConfig(weight_bits=bits, input_bits=bits, block=16))(x), model(x))
            for bits in (8, 4)
        )
        worst = max(worst, eight if eight < four else 1.0)
    return worst


@check(
    "bct", "4 bits are 7.988 times fewer where 1024 numbers share a shift of 6 bits, the paper's number", at_most=5e-4
)
def size() -> float:
    layer = nn.TransformerEncoderLayer(1024, 2, 1024, activation="gelu", batch_first=True)
    model = blockwise(
        nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), BlockwiseConfig(weight_bits=4, block=1024)
    )
    return abs(compression(model, scale_bits=6) - 7.988)
