"""What holds exactly for P2AT."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...kernels.attention import attend
from ...kernels.attention.axial import axial_attention
from ..companion import check
from ..p2at import P2at, P2atConfig, PyramidPooling, hard_pixel_loss

SMALL = P2atConfig(stages=(4, 8, 8, 8), depths=(1, 1, 1, 1), width=8, heads=2, key_width=4, classes=5)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@check("p2at", "on a map of one column, attention among rows is attention among positions", at_most=1e-12)
def one_column() -> float:
    q, k, v = (normal(2, 2, 7, 1, width, seed=seed) for seed, width in enumerate((4, 4, 8)))
    expected = attend(*(x.squeeze(3) for x in (q, k, v)))
    return float((axial_attention(q, k, v, axis=0) - expected).abs().max())


@check("p2at", "what sums to 0 along every row and column may be added to q, k and v: nothing changes", at_most=1e-12)
def means_only() -> float:
    q, k, v = (normal(2, 2, 5, 6, width, seed=seed) for seed, width in enumerate((4, 4, 8)))
    unseen = normal(2, 2, 5, 6, 8, seed=9)
    unseen = unseen - unseen.mean(2, keepdim=True)
    unseen = unseen - unseen.mean(3, keepdim=True)
    worst = 0.0
    for axis in (0, 1):
        moved = axial_attention(q + unseen[..., :4], k + unseen[..., 4:], v + unseen, axis=axis)
        worst = max(worst, float((moved - axial_attention(q, k, v, axis=axis)).abs().max()))
    return worst


@check("p2at", "attention among rows and columns costs H (Y^2 + X^2) (D + V) multiplications")
def cost() -> float:
    heads, rows, columns, width, values = 2, 24, 40, 4, 8
    q, k, v = (normal(1, heads, rows, columns, size) for size in (width, width, values))
    with FlopCounterMode(display=False) as counter:
        for axis in (0, 1):
            axial_attention(q, k, v, axis=axis)
    return abs(counter.get_total_flops() / 2 - heads * (rows**2 + columns**2) * (width + values))


@check(
    "p2at", "pooled as the published code does, the second average is never read; as the paper does, it is (1 if not)"
)
@torch.no_grad()
def pooling() -> float:
    torch.manual_seed(0)
    wrong = 0.0
    for legacy in (False, True):
        part, x = PyramidPooling(6, legacy=legacy).double().eval(), normal(1, 6, 9, 9)
        entered = part.enter(x)
        first = torch.nn.functional.avg_pool2d(entered, 3, 1, 1)
        second = torch.nn.functional.avg_pool2d(first, 5, 1, 2)
        third = torch.nn.functional.avg_pool2d(second, 7, 1, 3)
        expected = part.mix(torch.cat([first, first if legacy else second, third], 1)) * entered
        wrong += float(not torch.equal(part(x), expected))
    return wrong


@check("p2at", "fresh decoder blocks change next to nothing, as a share", at_most=1e-5)
@torch.no_grad()
def decoders() -> float:
    torch.manual_seed(0)
    model, x = P2at(SMALL).eval(), normal(1, 8, 6, 5).float()
    return max(float((block(x) - x).norm() / x.norm()) for block in model.decode)


@check("p2at", "the loss of hard pixels is the mean of those less likely than asked for, and of all where all are kept",
       at_most=1e-12)  # fmt: skip
def loss() -> float:
    logits, classes = normal(2, 3, 4, 5), torch.arange(40).reshape(2, 4, 5) % 3
    each = torch.nn.functional.cross_entropy(logits, classes, reduction="none")
    hard = each[each.neg().exp() < 0.3].mean()
    error = (hard_pixel_loss(logits, classes, sure=0.3, keep=1) - hard).abs()
    return float(error + (hard_pixel_loss(logits, classes, sure=0.3) - each.mean()).abs())


@check("p2at", "pictures of any size, odd ones too, get logits of their size: finite")
@torch.no_grad()
def any_size() -> float:
    torch.manual_seed(0)
    model, wrong = P2at(SMALL).eval(), 0.0
    for size in ((64, 64), (33, 50)):
        outs = model.all_logits(normal(1, 3, *size).float())
        wrong += float(len(outs) != 3)
        wrong += sum(tuple(out.shape) != (1, 5, *size) or not bool(out.isfinite().all()) for out in outs)
    return wrong
