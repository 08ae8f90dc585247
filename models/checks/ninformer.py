"""What holds exactly for NiNformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..companion import check
from ..ninformer import InnerMixer, Ninformer, NinformerBlock, NinformerConfig

SMALL = NinformerConfig(picture=16, width=12, hidden=20, layers=2, classes=5)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@check(
    "ninformer", "where the value is 1 everywhere, a block is an inner mixer and a feed-forward network", at_most=1e-6
)
@torch.no_grad()
def open_gate() -> float:
    torch.manual_seed(0)
    block, x = NinformerBlock(16, SMALL).eval(), normal(2, 16, 12)
    block.value.weight.zero_()
    block.value.bias.fill_(1.0)
    middle = x + block.mixer(block.norm(x))
    return float((block(x) - middle - block.feed_forward(block.norm(middle))).abs().max())


@check("ninformer", "the inner mixer is the Mixer's formula with tokens and channels transposed", at_most=1e-5)
@torch.no_grad()
def mixer() -> float:
    torch.manual_seed(0)
    part, x = InnerMixer(16, SMALL).eval(), normal(2, 16, 12)
    across = part.tokens.down(F.gelu(part.tokens.up(part.norm1(x).mT))).mT
    middle = x + across
    expected = middle + part.channels.down(F.gelu(part.channels.up(part.norm2(middle))))
    return float((part(x) - expected).abs().max())


@check("ninformer", "logits change where patches are put in another order: it knows where they are (1 if not)")
@torch.no_grad()
def positions() -> float:
    torch.manual_seed(0)
    model, x = Ninformer(SMALL).eval(), normal(1, 3, 16, 16)
    return float((model(x) - model(x.roll(4, -1))).abs().max() < 1e-4)
