"""What holds exactly for GAM."""

from __future__ import annotations

import torch
from torch import Tensor

from ..companion import check
from ..gam import Gam, GamBlock, GamConfig

SMALL = GamConfig(vocabulary=31, length=48, width=16, layers=3, memories=7)


def small() -> Gam:
    torch.manual_seed(0)
    return Gam(SMALL).eval()


def tokens(count: int = 40) -> Tensor:
    return torch.randint(SMALL.vocabulary, (2, count), generator=torch.Generator().manual_seed(1))


@check("gam", "a changed token changes no earlier logits")
@torch.no_grad()
def causal() -> float:
    model, one = small(), tokens()
    other = one.clone()
    other[:, 20] = (other[:, 20] + 1) % SMALL.vocabulary
    before, after = model(one), model(other)
    return float((before - after)[:, :20].abs().max())


@check("gam", "streaming in pieces of 1, 2 and 7 tokens gives the whole sequence's logits", at_most=1e-5)
@torch.no_grad()
def streaming() -> float:
    model, whole = small(), tokens()
    worst, expected = 0.0, model(whole)
    for piece in (1, 2, 7):
        parts, state = [], None
        for part in whole.split(piece, 1):
            logits, state = model.step(part, state)
            parts.append(logits)
        worst = max(worst, float((torch.cat(parts, 1) - expected).abs().max()))
    return worst


@check("gam", "logits depend on exactly the last 1 + layers (kernel - 1) tokens")
def receptive_field() -> float:
    model = small()
    embedded = model.tokens(tokens()).detach().requires_grad_()
    model.tokens.register_forward_hook(lambda *_: embedded)
    model(tokens())[:, -1].sum().backward()
    assert embedded.grad is not None
    reached = (embedded.grad != 0).any(-1).any(0).nonzero()[0].item()
    return abs(tokens().shape[1] - reached - (1 + SMALL.layers * (SMALL.kernel - 1)))


@check("gam", "the global path is softmax(h M^T) M without a scale, in float64", at_most=1e-6)
@torch.no_grad()
def bank() -> float:
    block = small().blocks[0]
    assert isinstance(block, GamBlock)
    h = torch.randn(2, 9, SMALL.width, generator=torch.Generator().manual_seed(2))
    M = block.bank_MD.double()
    expected = (h.double() @ M.T).softmax(-1) @ M
    return float((block.recall(h) - expected).abs().max())
