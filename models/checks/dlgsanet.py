"""What holds exactly for DLGSANet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.attention.channels import channel_weights
from ..companion import check
from ..dlgsanet import ChannelAttention, Dlgsanet, DlgsanetConfig, DynamicConv

SMALL = DlgsanetConfig(width=12, groups=1, blocks=1, heads=2, filter_channels=3)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@check("dlgsanet", "where its network makes the same filters everywhere, it is a depthwise convolution", at_most=1e-5)
@torch.no_grad()
def same_filters() -> float:
    torch.manual_seed(0)
    part, x = DynamicConv(SMALL), normal(2, 12, 9, 8)
    last = part.filters[2]
    assert isinstance(last, torch.nn.Conv2d) and last.bias is not None
    last.weight.zero_()
    filters = last.bias.reshape(4, 7, 7).repeat_interleave(3, 0)[:, None]
    expected = part.after(F.conv2d(part.before(x), filters, padding=3, groups=12))
    return float((part(x) - expected).abs().max())


@check(
    "dlgsanet",
    "tiles as large as the picture are no tiles, and equal tiles of a repeating picture are one",
    at_most=1e-5,
)
@torch.no_grad()
def tiles() -> float:
    torch.manual_seed(0)
    part = ChannelAttention(SMALL)
    mixed = normal(2, 36, 8, 8)
    large = float((part.in_tiles(mixed, 8) - part.attend(mixed)).abs().max())
    repeating = mixed.repeat(1, 1, 2, 2)  # attention among channels sees the same in a tile as in the whole
    tiled = part.in_tiles(repeating, 8)
    return max(large, float((tiled - part.attend(repeating)).abs().max()))


@check(
    "dlgsanet",
    "about half of the weights among channels are exactly 0 in a fresh model (how far from half)",
    at_most=0.1,
)
@torch.no_grad()
def sparse() -> float:
    torch.manual_seed(0)
    part = ChannelAttention(DlgsanetConfig())
    q, k, _ = part.mix(part.query_key_value(normal(1, 48, 24, 24))).flatten(2).unflatten(1, (3, 6, 8)).unbind(1)
    weights = channel_weights(q, k, part.temperature_H, normaliser="relu")
    return abs(float((weights == 0).float().mean()) - 0.5)


@check("dlgsanet", "pictures of any size come out scale times larger, batches as their pictures alone", at_most=1e-5)
@torch.no_grad()
def sizes() -> float:
    torch.manual_seed(0)
    model, x = (
        Dlgsanet(DlgsanetConfig(width=12, groups=1, blocks=1, heads=2, filter_channels=3, scale=3, tile=6)),
        normal(2, 3, 11, 7),
    )
    out = model(x)
    wrong = float(tuple(out.shape) != (2, 3, 33, 21))
    return wrong + float((out - torch.cat([model(one[None]) for one in x])).abs().max())
