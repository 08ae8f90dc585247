"""What holds exactly for MAXIM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..companion import check
from ..maxim import AxisGmlp, Maxim, MaximConfig, MultiAxis, Supervision
from ..remember import filled


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


@check("maxim", "a gated MLP is h + W (u * (mix(norm(v)) + 1)) along one axis, written out", at_most=1e-12)
@torch.no_grad()
def gated() -> float:
    worst = 0.0
    for grid, shape, mixing in (
        (False, (2, 2, 3, 3, 3, 4), "ijkl,nakclz->naicjz"),  # blocks of 3 x 3 pixels: those of one block are mixed
        (True, (2, 3, 2, 3, 3, 4), "ijkl,nkplqz->nipjqz"),  # 3 x 3 cells of 2 x 3 pixels: one of each cell is mixed
    ):
        part, x = filled(AxisGmlp(4, 3, grid=grid)), normal(2, 6, 9, 4)
        u, v = (_norm(x, part.norm) @ part.up.weight.T + part.up.bias).chunk(2, -1)
        u, v = (y * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (y + 0.044715 * y**3))) / 2 for y in (u, v))
        mixed = torch.einsum(mixing, part.mix.weight.view(3, 3, 3, 3), _norm(v, part.gate_norm).reshape(shape))
        bias = part.mix.bias.view(3, 1, 3, 1, 1) if grid else part.mix.bias.view(1, 3, 1, 3, 1)
        expected = x + (u * ((mixed + bias).reshape(x.shape) + 1)) @ part.down.weight.T + part.down.bias
        worst = max(worst, float((part(x) - expected).abs().max()))
    return worst


@check("maxim", "where stages add nothing, their pictures are those given: every pixel, every 2nd, every 4th of them")
@torch.no_grad()
def pictures() -> float:
    model, x = filled(Maxim(MaximConfig(features=4, stages=2))), normal(1, 3, 64, 64)
    for stage in model.stages:
        for output in stage.outputs:
            last = output.picture if isinstance(output, Supervision) else output
            for value in last.parameters():
                value.zero_()
    wanted = [x, x[:, :, 1::2, 1::2], x[:, :, 2::4, 2::4]]  # as jax.image.resize picks the nearest
    found = model.pictures(x)
    assert len(found) == 2
    return max(float((a - b).abs().max()) for stage in found for a, b in zip(stage, wanted, strict=True))


def _norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias
