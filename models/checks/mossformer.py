"""What holds exactly for MossFormer."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.attention.local_global import local_global_attention
from ..companion import check
from ..layers.separation import in_best_order, si_sdr
from ..mossformer import Mossformer, MossformerConfig, rotated


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model_of(*, over_all: bool = True, blocks: int = 1) -> Mossformer:
    """Small, in float64, with weights large enough that every part matters."""
    torch.manual_seed(0)
    config = MossformerConfig(width=8, blocks=blocks, group=4, key_width=8, filter=3, dropout=0.0, over_all=over_all)
    model = Mossformer(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.4 * torch.randn_like(parameter))
    return model


@check("mossformer", "with one group and no state, attention is relu(q k^T / group)^2 v over everything", at_most=1e-12)
def dense() -> float:
    q, k, v = (normal(2, 9, 5, seed=i) for i in range(3))
    return float((local_global_attention(q, k, v, group=9) - (q @ k.mT / 9).relu() ** 2 @ v).abs().max())


@check("mossformer", "the state of all frames is q k^T v / N without a group's weights", at_most=1e-12)
def linear() -> float:
    q, k, v = (normal(2, 9, 5, seed=i) for i in range(3))
    zero = torch.zeros_like(q)
    out = local_global_attention(zero, zero, v, group=4, q_global=q, k_global=k)
    return float((out - q @ k.mT @ v / 9).abs().max())


@check("mossformer", "values side by side under one attention are each under it alone", at_most=1e-12)
def joint() -> float:
    q, k, v, u, q_global, k_global = (normal(2, 10, 5, seed=i) for i in range(6))

    def attend(values: Tensor) -> Tensor:
        return local_global_attention(q, k, values, group=4, q_global=q_global, k_global=k_global)

    return float((attend(torch.cat([v, u], -1)) - torch.cat([attend(v), attend(u)], -1)).abs().max())


@check("mossformer", "a block reaches all frames; without the state, its group and its filters only (1 if not)")
def reach() -> float:
    wrong = 0.0
    for over_all in (True, False):
        x = normal(1, 24, 8).requires_grad_()
        model_of(over_all=over_all).blocks(x)[0, 1].sum().backward()  # frame 1, of the group of frames 0 to 3
        assert x.grad is not None
        reached = (x.grad[0] != 0).any(-1)
        beyond = reached[5:]  # filters of 3 frames reach one frame out of the group
        wrong += float(not bool(beyond.all()) if over_all else bool(beyond.any()) or not bool(reached[:2].all()))
    return wrong


@check("mossformer", "scores of turned queries and keys depend on how far apart they are only", at_most=1e-5)
def relative() -> float:
    frequencies = 10_000.0 ** (-torch.arange(3) / 3)
    q, k = (rotated(normal(1, 8, seed=i).expand(12, 8), frequencies) for i in range(2))
    scores = q @ k.T
    return float((scores[1:, 1:] - scores[:-1, :-1]).abs().max())


@check("mossformer", "as many samples come out as went in, and the last of them reach the output (how many do not)")
def lengths() -> float:
    model, wrong = model_of(), 0.0
    for samples in (5, 16, 57, 64, 71):
        mixture = normal(2, samples).requires_grad_()
        out = model(mixture)
        out.square().sum().backward()
        assert mixture.grad is not None
        wrong += float(out.shape != (2, 2, samples) or not bool((mixture.grad[:, -1] != 0).all()))
    return wrong


@check("mossformer", "recordings of a batch do not see each other", at_most=1e-12)
@torch.no_grad()
def alone() -> float:
    model, mixture = model_of(blocks=2), normal(3, 90)
    return float((model(mixture) - torch.cat([model(one[None]) for one in mixture])).abs().max())


@check("mossformer", "SI-SDR is that of the angle between signals, whatever their loudness and offset", at_most=1e-9)
def angle() -> float:
    one, other = normal(50), normal(50, seed=1)
    a, b = one - one.mean(), other - other.mean()
    cosine = (a @ b) / (a.norm() * b.norm())
    expected = 10 * (cosine**2 / (1 - cosine**2)).log10()
    return max(abs(float(si_sdr(c * one + 2, other) - expected)) for c in (1, 3, -0.2))


@check("mossformer", "the loss does not change with the order in which speakers come out", at_most=1e-12)
def orders() -> float:
    targets, estimates = normal(2, 3, 40), normal(2, 3, 40, seed=1)
    sorted_one, best = in_best_order(estimates, targets)
    sorted_other, other = in_best_order(estimates[:, [2, 0, 1]], targets)
    return max(float((best - other).abs().max()), float((sorted_one - sorted_other).abs().max()))
