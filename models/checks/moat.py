"""What holds exactly for MOAT."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.attention import attend
from ...kernels.attention.windows import relative_bias
from ..companion import check
from ..moat import HEAD_WIDTH, MapAttention, Moat, MoatConfig, SameConv

SMALL = MoatConfig(stem=8, widths=(16, 32, 64), depths=(1, 1, 2), attention=(1, 2), picture=64, classes=7)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@check("moat", "attention over a map is softmax attention of its positions, with the table's bias", at_most=1e-5)
@torch.no_grad()
def whole_map() -> float:
    torch.manual_seed(0)
    part, x = MapAttention(64, 4, positions=True, window=None), normal(2, 64, 4, 4)
    assert part.table is not None
    part.table.normal_()
    h = part.norm(x.movedim(1, -1)).flatten(1, 2)
    q, k, v = (m(h).unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for m in (part.query, part.key, part.value))
    out = attend(q, k, v, bias=relative_bias(part.table, (4, 4))).transpose(1, 2).flatten(-2)
    return float((part(x) - x - part.out(out).mT.unflatten(-1, (4, 4))).abs().max())


@check("moat", "windows as large as the map are attention over the map", at_most=1e-6)
@torch.no_grad()
def large_windows() -> float:
    torch.manual_seed(0)
    part, x = MapAttention(32, 6, positions=True, window=None), normal(1, 32, 6, 6)
    whole = part(x)
    part.window = 6
    return float((part(x) - whole).abs().max())


@check("moat", "a table keeps its values where the map has the size it was made for, and its corners where not")
@torch.no_grad()
def tables() -> float:
    table = normal(2, 27, 27)
    same = relative_bias(table, (14, 14))
    larger = relative_bias(table, (20, 20))
    corners = (larger[:, 0, -1] - table[:, 0, 0]).abs().max() + (larger[:, -1, 0] - table[:, -1, -1]).abs().max()
    return float(
        corners + (same[:, 0, -1] - table[:, 0, 0]).abs().max() + (same[:, 5, 3] - table[:, 13, 15]).abs().max()
    )


@check(
    "moat",
    "without positions and convolutions' neighbours, attention follows its positions when they move",
    at_most=1e-5,
)
@torch.no_grad()
def equivariant() -> float:
    torch.manual_seed(0)
    part, x = MapAttention(32, 4, positions=False, window=None), normal(1, 32, 4, 4)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    moved = x.flatten(2)[..., order].unflatten(-1, (4, 4))
    return float((part(moved).flatten(2) - part(x).flatten(2)[..., order]).abs().max())


@check(
    "moat", "a convolution with stride 2 on an even grid sees nothing before it, and half as many positions come out"
)
@torch.no_grad()
def padding() -> float:
    conv = SameConv(1, 1, 3, 2, bias=False)
    conv.weight.fill_(1.0)
    out, odd = conv(torch.ones(1, 1, 4, 4)), conv(torch.ones(1, 1, 5, 5))
    expected = torch.tensor([[9.0, 6.0], [6.0, 4.0]])
    return float((out[0, 0] - expected).abs().max()) + abs(odd.shape[-1] - 3) + abs(float(odd[0, 0, 0, 0]) - 4)


@check("moat", "one model takes pictures of other sizes, odd ones too: finite logits")
@torch.no_grad()
def any_size() -> float:
    torch.manual_seed(0)
    model = Moat(SMALL).eval()
    outs = [model(normal(1, 3, *size)) for size in ((64, 64), (37, 50))]
    return float(sum(tuple(out.shape) != (1, 7) or not bool(out.isfinite().all()) for out in outs))
