"""What holds exactly for CRAFT."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.attention.windows import reference_window_attention
from ..companion import check
from ..craft import Craft, CraftConfig, PositionNetwork, WindowLayer

SMALL = CraftConfig(width=16, groups=1, blocks=1, heads=2)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@check(
    "craft", "each half of the heads attends in its own windows, and shifted ones wrap around the picture", at_most=1e-5
)
@torch.no_grad()
def halves() -> float:
    torch.manual_seed(0)
    worst, x = 0.0, normal(1, 16, 32, 16)
    for shifted in (False, True):
        layer = WindowLayer(SMALL, shifted=shifted)
        q, k, v = layer.query_key_value(x).unflatten(-1, (3, 2, -1)).unbind(3)
        parts = []
        for head, window in enumerate(((4, 16), (16, 4))):
            one = slice(head, head + 1)
            shift = (window[0] // 2, window[1] // 2) if shifted else (0, 0)
            q1, k1, v1 = q[..., one, :], k[..., one, :], v[..., one, :]
            parts.append(reference_window_attention(q1, k1, v1, window=window, shift=shift, masked=False))
        local = layer.local(v.flatten(-2).movedim(-1, 1)).movedim(1, -1)
        worst = max(worst, float((layer.attend(x) - torch.cat(parts, -2).flatten(-2) - local).abs().max()))
    return worst


@check("craft", "at the paper's width the bias for positions is the same for every offset (its spread)")
@torch.no_grad()
def constant_bias() -> float:
    torch.manual_seed(0)
    layer = WindowLayer(CraftConfig(), shifted=False)
    return max(float(part((4, 16)).flatten(1).std(1).max()) for part in layer.positions)


@check("craft", "two units make a bias that follows positions (1 if not)")
@torch.no_grad()
def wider_bias() -> float:
    torch.manual_seed(1)
    return float(PositionNetwork(8, 3)((4, 16)).flatten(1).std(1).min() < 1e-3)


@check("craft", "windows with and without a mask differ on the outer half window only (positions elsewhere)")
@torch.no_grad()
def wraps() -> float:
    torch.manual_seed(0)
    layer, x = WindowLayer(SMALL, shifted=True), normal(1, 32, 32, 16)
    around = layer.attend(x)
    layer.masked = True
    differs = ((around - layer.attend(x)).abs() > 1e-4).any(-1)[0]
    return float(differs[8:24, 8:24].sum()) + float(not bool(differs[0, 0]))


@check("craft", "pictures that windows do not fill come out scale times larger (1 if not)")
@torch.no_grad()
def sizes() -> float:
    torch.manual_seed(0)
    out = Craft(CraftConfig(width=16, groups=1, blocks=1, heads=2, scale=4))(normal(1, 3, 19, 33))
    return float(tuple(out.shape) != (1, 3, 76, 132) or not bool(out.isfinite().all()))
