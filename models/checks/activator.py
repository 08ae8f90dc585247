"""What holds exactly for Activator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..activator import Activator, ActivatorBlock, ActivatorConfig, GatedUnit
from ..companion import check
from ..layers.pictures import from_patches, into_patches
from ..remember import filled

SMALL = ActivatorConfig(width=16, hidden=24, layers=3, classes=5)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def small() -> Activator:
    torch.manual_seed(0)
    return Activator(SMALL).eval()


@check("activator", "logits are the same whatever the order of the patches", at_most=1e-5)
@torch.no_grad()
def bag_of_patches() -> float:
    model, x = small(), normal(2, 3, 16, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    return float((model(from_patches(into_patches(x, 4)[:, order], 4, (16, 16))) - model(x)).abs().max())


@check("activator", "logits are the mean over patches shown one by one", at_most=1e-5)
@torch.no_grad()
def one_by_one() -> float:
    model, x = small(), normal(1, 3, 16, 16)
    alone = from_patches(into_patches(x, 4)[0][:, None], 4, (4, 4))
    return float((model(alone).mean(0) - model(x)[0]).abs().max())


@check("activator", "the gated unit is W3 (norm(GELU(W1 x)) * norm(W2 x)) written out, with one norm", at_most=1e-12)
@torch.no_grad()
def unit() -> float:
    part, x = filled(GatedUnit(6, 10)), normal(3, 5, 6).double()

    def norm(y: Tensor) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * part.norm.weight + part.norm.bias

    gate, value = (x @ layer.weight.T + layer.bias for layer in (part.gate, part.value))
    gate = gate * (1 + torch.erf(gate / 2**0.5)) / 2
    return float((part(x) - (norm(gate) * norm(value)) @ part.out.weight.T - part.out.bias).abs().max())


@check("activator", "a block adds the unit, then the feed-forward network, both behind one norm", at_most=1e-12)
@torch.no_grad()
def block() -> float:
    part, x = filled(ActivatorBlock(ActivatorConfig(width=6, hidden=10))), normal(3, 5, 6).double()

    def norm(y: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(y, (6,), part.norm.weight, part.norm.bias)

    y = x + part.unit(norm(x))
    wide, _, _, narrow, _ = part.feed_forward
    expected = y + torch.nn.functional.gelu(norm(y) @ wide.weight.T + wide.bias) @ narrow.weight.T + narrow.bias
    return float((part(x) - expected).abs().max())
