"""What holds exactly for the dynamics of one layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..companion import check
from ..scan_snap import Language, attend, gradients, train

SMALL = Language(next_tokens=3, common=4, distinct=3, length=20)


@check(
    "scan_snap", "the closed form is what autograd finds for attention over a sequence of one-hot tokens", at_most=1e-12
)
def autograd() -> float:
    generator = torch.Generator().manual_seed(0)
    M = SMALL.tokens
    following = SMALL.first_next + torch.randint(3, (5,), generator=generator)
    context = torch.randint(SMALL.first_next, (5, 20), generator=generator)
    X = F.one_hot(context, M).double()
    Y, z = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((M, M), (M,)))
    Y.requires_grad_()
    z.requires_grad_()
    found = torch.einsum("bnm,bn->bm", X, (X @ z).softmax(1))
    loss = F.cross_entropy(F.normalize(found, dim=1) @ Y, following)
    by_torch = torch.autograd.grad(-loss, (Y, z))
    ours = gradients(Y.detach(), z.detach(), X.sum(1), following)
    return max(float((a - b).abs().max()) for a, b in zip((*by_torch, loss.detach()), ours, strict=True))


@check("scan_snap", "rows of both matrices go on to sum to 0", at_most=1e-12)
def sums() -> float:
    made = train(SMALL, decoder_rate=2.0, attention_rate=1.0, steps=40, batch=16)
    return max(float(made.Y_MM.sum(1).abs().max()), float(made.z_M.sum().abs()))


@check(
    "scan_snap", "attention in a context of 16 N tokens is 4 times nearer to its limit than in one of N, within a fifth"
)
def limit() -> float:
    generator, z = torch.Generator().manual_seed(0), torch.linspace(-1, 1, SMALL.tokens, dtype=torch.float64)
    errors = []
    for length in (200, 3200):
        language = Language(next_tokens=3, common=4, distinct=3, length=length)
        following, counts = language.draw(300, generator)
        wanted = attend(z, language.chances())[following - language.first_next]
        errors.append(float((attend(z, counts) - wanted).square().mean().sqrt()))
    return max(0.0, abs(errors[0] / errors[1] / 4 - 1) - 0.2)


@check("scan_snap", "a single common token loses at every step, and no distinct token of a frequent kind does")
def single() -> float:
    language, before = Language(next_tokens=2, common=1, distinct=4, length=400), 0.0
    wrong = 0.0
    for steps in (1, 10, 40):
        z = train(language, decoder_rate=2.0, attention_rate=1.0, steps=steps + 1, batch=64).z_M
        wrong += max(0.0, float(z[0]) - before) + max(0.0, -float(z[[4, 8]].min()))
        before = float(z[0])
    return wrong


@check("scan_snap", "tokens that are in no context keep an attention of 0")
def absent() -> float:
    made = train(SMALL, decoder_rate=2.0, attention_rate=1.0, steps=20, batch=16)
    return float(made.z_M[SMALL.first_next :].abs().max())
