"""What holds exactly for HorNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..companion import check
from ..hornet import GlobalLocalFilter, HorNet, HorNetConfig, RecursiveGatedConv


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@check("hornet", "without biases, a mixer of order n is homogeneous of degree n + 1: for n from 1 to 5", at_most=1e-5)
@torch.no_grad()
def degree() -> float:
    worst = 0.0
    for order in range(1, 6):
        torch.manual_seed(order)
        mixer = RecursiveGatedConv(32, order).double()
        for part in mixer.modules():
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                part.bias.zero_()
        x = normal(1, 32, 8, 8, seed=order).double()
        once, twice = mixer(x), mixer(2 * x)
        worst = max(worst, float((twice - 2 ** (order + 1) * once).abs().max() / twice.abs().max()))
    return worst


@check("hornet", "the mixer of order 1 is a plain gated convolution", at_most=1e-6)
@torch.no_grad()
def first_order() -> float:
    torch.manual_seed(0)
    mixer, x = RecursiveGatedConv(8, 1), normal(2, 8, 6, 6)
    value, gate = F.conv2d(x, mixer.project.weight, mixer.project.bias).chunk(2, 1)
    return float((mixer(x) - mixer.out(value * mixer.filter(gate) / 3)).abs().max())


@check("hornet", "a global filter of ones changes nothing, on maps of odd and even size", at_most=1e-5)
@torch.no_grad()
def identity() -> float:
    part, worst = GlobalLocalFilter(8, 6, 4), 0.0
    part.spectrum[..., 0], part.spectrum[..., 1] = 1.0, 0.0
    for size in ((6, 6), (9, 7), (4, 10)):
        x = normal(2, 4, *size)
        worst = max(worst, float((part.filtered(x) - x).abs().max()))
    return worst


@check("hornet", "a global filter is a circular convolution by its inverse transform, in float64", at_most=1e-5)
@torch.no_grad()
def circular() -> float:
    torch.manual_seed(0)
    part, x = GlobalLocalFilter(4, 6, 4), normal(1, 2, 6, 6)
    part.spectrum.normal_()
    response = torch.fft.irfft2(torch.view_as_complex(part.spectrum.double().contiguous()), (6, 6))
    expected = torch.zeros(1, 2, 6, 6, dtype=torch.float64)
    for row in range(6):
        for column in range(6):
            expected += response[:, row, column, None, None] * x.double().roll((row, column), (2, 3))
    return float((part.filtered(x) - expected).abs().max())


@check("hornet", "a fresh model's blocks leave the stream unchanged up to their scale of 1e-6", at_most=1e-4)
@torch.no_grad()
def fresh() -> float:
    torch.manual_seed(0)
    model = HorNet(HorNetConfig(width=16, depths=(2, 1, 1), orders=(2, 3, 2), global_filters=True, picture=32)).eval()
    x = expected = normal(1, 3, 32, 32)
    for layer in model.layers:
        x = layer(x)
        expected = expected if hasattr(layer, "mixer") else layer(expected)
    return float((x - expected).abs().max())
