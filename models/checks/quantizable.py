"""What holds exactly for quantizable transformers."""

from __future__ import annotations

import torch
from torch import nn

from ...kernels.attention import ClippedSoftmax, attend
from ...kernels.quantised import quantise
from ..companion import check
from ..quantizable import QuantisedLinear, outliers, quantised
from .hybrid import leaked, model_of, tokens


@check("quantizable", "gamma 0 and zeta 1 are a softmax", at_most=1e-6)
def plain() -> float:
    q, k, v = torch.randn(3, 1, 2, 12, 8, generator=torch.Generator().manual_seed(0))
    clipped = attend(q, k, v, causal=True, normaliser=ClippedSoftmax(gamma=0.0))
    return float((clipped - attend(q, k, v, causal=True)).abs().max())


@check("quantizable", "weights below -gamma / (1 - gamma) are exactly 0 and have no gradient; the others are not 0")
def zeros() -> float:
    scores = torch.randn(4, 20, generator=torch.Generator().manual_seed(0)).mul(3).requires_grad_()
    weights = ClippedSoftmax(gamma=-0.05)(scores, None)
    small = scores.softmax(-1) < 0.05 / 1.05
    (gradient,) = torch.autograd.grad((weights * small).sum(), scores)
    return float((small != (weights == 0)).sum() + gradient.abs().sum())


@check("quantizable", "masked keys keep weight 0 and the model stays causal", at_most=1e-12)
def masked() -> float:
    model = model_of("full", "full", clip=4.0, gate="head")
    with torch.no_grad():
        one, other = tokens(), tokens()
        other[:, 50:] = 0
        # As many keys: gamma depends on their number, so streaming is another model by the paper's rule.
        return max(leaked(model), float((model(one) - model(other))[:, :50].abs().max()))


@check("quantizable", "codes of 8 bits quantised again are the same codes")
def again() -> float:
    x = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    once = quantise(x)
    return float((quantise(once.dequantised()).codes != once.codes).sum())


@check("quantizable", "in 8 bits, every linear layer's weights are within half a step of their own")
def steps() -> float:
    exact = nn.Linear(20, 30)
    layer = next(quantised(nn.Sequential(exact)).children())
    assert isinstance(layer, QuantisedLinear)
    error = (layer.weight.dequantised() - exact.weight).abs().max()
    return float(error > 0.5001 * layer.weight.scale.max())


@check("quantizable", "8 bits move the logits by less than 5 % of their size, 4 bits by more", at_most=0.05)
@torch.no_grad()
def logits() -> float:
    model = model_of("full", "full").float()
    exact = model(tokens())
    eight, four = (float((quantised(model, bits=b)(tokens()) - exact).norm() / exact.norm()) for b in (8, 4))
    return eight if four > eight else 1.0


@check("quantizable", "outliers of normal numbers have kurtosis 3", at_most=0.2)
def kurtosis() -> float:
    model = model_of("full")
    model.blocks[0] = _Normal()
    return abs(outliers(model, tokens(500))["kurtosis"] - 3)


class _Normal(nn.Module):
    def forward(self, x: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype), state
