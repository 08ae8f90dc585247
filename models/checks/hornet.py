"""What holds exactly for HorNet."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..companion import check
from ..hornet import GlobalLocalFilter, HorNetBlock, RecursiveGatedConv
from ..remember import filled


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


@check("hornet", "a block is its equations written out, norms and layer scales far from 0 among them", at_most=1e-12)
@torch.no_grad()
def block() -> float:
    part: Any = filled(HorNetBlock(8, RecursiveGatedConv(8, 3)))
    mixer, x = part.mixer, normal(2, 8, 9, 5).double()

    def norm(y: Tensor, layer: Any) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias

    def linear(y: Tensor, layer: Any) -> Tensor:
        return y @ layer.weight.flatten(1).T + layer.bias

    p, gates = linear(norm(x.movedim(1, -1), part.norm1), mixer.project).split([2, 14], -1)
    near = F.conv2d(gates.movedim(-1, 1), mixer.filter.weight, mixer.filter.bias, padding=3, groups=14).movedim(1, -1)
    for k, gate in enumerate((near / 3).split([2, 4, 8], -1)):
        p = (p if k == 0 else linear(p, mixer.mixes[k - 1])) * gate
    y = x.movedim(1, -1) + part.scale1.flatten() * linear(p, mixer.out)
    hidden = linear(norm(y, part.norm2), part.feed_forward[0])
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    expected = y + part.scale2 * linear(hidden, part.feed_forward[2])
    return float((part(x) - expected.movedim(-1, 1)).abs().max() / expected.abs().max())
