"""What holds exactly for MAXIM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..companion import check
from ..maxim import AxisGmlp, Maxim, MaximConfig, MultiAxis


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def seen(layers: nn.Module) -> int:
    """Pixels of a picture of 64 x 64 that one pixel of the output depends on."""
    x = normal(1, 64, 64, 4).requires_grad_()
    layers.double()(x)[0, 21, 38].square().sum().backward()
    assert x.grad is not None
    return int((x.grad[0] != 0).any(-1).sum())


@check("maxim", "one mixer of both axes sees 256 + 256 - 16 pixels of 64 x 64, two see all")
def receptive_field() -> float:
    torch.manual_seed(0)
    one, two = MultiAxis(4, 16), nn.Sequential(MultiAxis(4, 16), MultiAxis(4, 16))
    return float(abs(seen(one) - 496) + abs(seen(two) - 4096))


@check(
    "maxim",
    "on a picture of one block, whose cells are its pixels, mixing across the grid is mixing in the block",
    at_most=1e-6,
)
@torch.no_grad()
def one_block() -> float:
    torch.manual_seed(0)
    block, grid, x = AxisGmlp(4, 8, grid=False), AxisGmlp(4, 8, grid=True), normal(2, 8, 8, 4).float()
    grid.load_state_dict(block.state_dict())
    return float((block(x) - grid(x)).abs().max())


@check("maxim", "blocks are worked on alone: a picture moved by a block is mixed the same", at_most=1e-6)
@torch.no_grad()
def blocks_alone() -> float:
    torch.manual_seed(0)
    part, x = AxisGmlp(4, 8, grid=False), normal(1, 32, 24, 4).float()
    return float((part(x.roll((8, 16), (1, 2))) - part(x).roll((8, 16), (1, 2))).abs().max())


@check("maxim", "one model gives a picture for every stage and scale, of 64 x 64 and of 64 x 128 (1 if not)")
@torch.no_grad()
def pictures() -> float:
    torch.manual_seed(0)
    model = Maxim(MaximConfig(features=4, stages=2))
    for columns in (64, 128):
        found = model.pictures(normal(1, 3, 64, columns).float())
        shapes = [[tuple(picture.shape) for picture in stage] for stage in found]
        if shapes != [[(1, 3, 64 >> i, columns >> i) for i in range(3)]] * 2:
            return 1.0
    return 0.0
