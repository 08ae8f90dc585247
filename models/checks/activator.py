"""What holds exactly for Activator."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.feed_forward import glu
from ..activator import Activator, ActivatorConfig, GatedUnit
from ..companion import check
from ..layers.pictures import from_patches, into_patches

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


@check("activator", "without its norms the gated unit is the GEGLU kernel", at_most=1e-6)
@torch.no_grad()
def geglu() -> float:
    torch.manual_seed(0)
    unit, x = GatedUnit(8, 12), normal(3, 8)
    unit.norm = torch.nn.Identity()
    expected = glu(
        x,
        unit.value.weight,
        unit.out.weight,
        unit.gate.weight,
        activation="gelu",
        up_bias_H=unit.value.bias,
        gate_bias_H=unit.gate.bias,
        down_bias_O=unit.out.bias,
    )
    return float((unit(x) - expected).abs().max())
