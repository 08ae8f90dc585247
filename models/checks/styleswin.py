"""What holds exactly for StyleSwin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.attention.windows import relative_bias, window_attention
from ..companion import check
from ..layers.adversarial import FIR, resampled
from ..styleswin import (
    Critic,
    StyledBlock,
    StyledNorm,
    StyleSwin,
    StyleSwinConfig,
    gradient_penalty,
    positions,
    widths_of,
)

SMALL = StyleSwinConfig(widths=(16, 16, 8), style=12, mapping=2, window=4)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@check("styleswin", "critics of 256 and 32 pixels have 26,211,073 and 16,018,945 parameters (how many more)", at_most=0)
def critics() -> float:
    counts = {256: 26_211_073, 32: 16_018_945}
    with torch.device("meta"):
        found = {side: Critic(StyleSwinConfig(widths=widths_of(side, 2))) for side in counts}
    return float(sum(abs(sum(p.numel() for p in found[side].parameters()) - counts[side]) for side in counts))


@check("styleswin", "a styled channel has the style's offset as mean and its factor's size as deviation", at_most=1e-4)
@torch.no_grad()
def styled() -> float:
    torch.manual_seed(0)
    norm, style = StyledNorm(6, 12).double(), normal(3, 12, seed=1)
    made = norm(3 + 5 * normal(3, 8, 8, 6), style)
    factor, offset = norm.style(style).chunk(2, -1)
    mean = (made.mean((1, 2)) - offset).abs().max()
    return float(torch.maximum(mean, (made.std((1, 2), correction=0) - factor.abs()).abs().max()))


@check("styleswin", "without shifts, both halves of the heads are one attention in windows", at_most=1e-12)
@torch.no_grad()
def halves() -> float:
    torch.manual_seed(0)
    block, x = StyledBlock(16, 8, SMALL).double(), normal(2, 8, 8, 16)
    block.shift = 0
    bias = torch.cat([relative_bias(table, (4, 4)) for table in block.tables])
    q, k, v = block.qkv(x).unflatten(-1, (3, 4, -1)).unbind(3)
    expected = window_attention(q, k, v, window=(4, 4), bias=bias).flatten(3)
    return float((block.attended(x) - expected).abs().max())


@check("styleswin", "a place is reached from its window and its shifted window, and from no other place", at_most=0)
def reach() -> float:
    torch.manual_seed(0)
    block, x = StyledBlock(16, 16, SMALL).double(), normal(1, 16, 16, 16).requires_grad_()
    block.attended(x)[0, 5, 6].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(-1) > 0
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:8, 4:8] = True
    expected[2:6, 6:10] = True
    return float((reached != expected).sum())


@check("styleswin", "twice as many pixels are a transposed convolution's, half as many a convolution's", at_most=1e-12)
@torch.no_grad()
def resampling() -> float:
    x, taps = normal(2, 3, 6, 8), torch.tensor(FIR, dtype=torch.float64)
    kernel = torch.outer(taps, taps)
    kernel = (kernel / kernel.sum()).expand(3, 1, 4, 4)
    up = F.conv_transpose2d(x, 4 * kernel, stride=2, padding=1, groups=3)
    down = F.conv2d(x, kernel, stride=2, padding=1, groups=3)
    worst = (resampled(x, FIR, up=2) - up).abs().max()
    return float(torch.maximum(worst, (resampled(x, FIR, down=2) - down).abs().max()))


@check(
    "styleswin",
    "noise of another length gives the same picture; pictures of a batch do not see each other",
    at_most=1e-9,
)
@torch.no_grad()
def noise() -> float:
    torch.manual_seed(0)
    model, z = StyleSwin(SMALL).double(), normal(3, 12)
    made = model(z)
    longer = (model(7 * z) - made).abs().max()
    return float(torch.maximum(longer, (model(z[1:2]) - made[1:2]).abs().max()))


@check("styleswin", "positions do nothing at first, and are all different", at_most=0)
@torch.no_grad()
def places() -> float:
    grid = positions(12, 10, 16).flatten(0, 1)
    apart = torch.cdist(grid, grid) + 10 * torch.eye(len(grid))
    strengths = sum(float(part.strength.abs()) for part in StyleSwin(SMALL).upsamples)  # type: ignore[arg-type, union-attr]
    return strengths + float((apart < 0.05).sum())


@check("styleswin", "the penalty of a critic that is a plane is the square of its slope", at_most=1e-9)
def penalty() -> float:
    plane = nn.Sequential(nn.Flatten(), nn.Linear(48, 1)).double()
    slope = plane[1].weight.square().sum()  # type: ignore[union-attr, operator]
    return float((gradient_penalty(plane, normal(5, 3, 4, 4)) - slope).detach().abs())  # type: ignore[operator]
