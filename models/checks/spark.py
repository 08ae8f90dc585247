"""What holds exactly for Spark layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..companion import check
from ..layers.rotary import rotate
from ..spark import SparkAttention, SparkConfig, SparkFeedForward


def config(**changes: int) -> SparkConfig:
    return SparkConfig(**{"width": 32, "hidden": 256, "predictor": 14, "active": 20, "heads": 2, "keys": 6, **changes})


def inputs(tokens: int = 30) -> Tensor:
    return torch.randn(2, tokens, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def attention(**changes: int) -> SparkAttention:
    torch.manual_seed(0)
    return SparkAttention(config(**changes)).double()


@check("spark", "the chosen units' weights alone give what all units give", at_most=1e-12)
@torch.no_grad()
def gathered() -> float:
    torch.manual_seed(0)
    layer = SparkFeedForward(config()).double()
    return float((layer(inputs()) - layer.gathered(inputs())).abs().max())


@check(
    "spark",
    "it has the parameters of a gated network of width 2304 and 9216 units, and 0.284 of its FLOPs",
    at_most=5e-4,
)
def costs() -> float:
    with torch.device("meta"):
        layer = SparkFeedForward(SparkConfig())
    gated = 3 * 2304 * 9216
    count = sum(parameter.numel() for parameter in layer.parameters())
    return abs(count - gated) + abs(layer.flops() / (2 * gated) - 0.284)


@check("spark", "asked to keep all units, it keeps all: V (gelu(K1 x[:R]) * (K2 x[R:]))", at_most=1e-12)
@torch.no_grad()
def all_units() -> float:
    torch.manual_seed(0)
    layer = SparkFeedForward(config(active=256)).double()
    x = inputs()
    expected = layer.out(F.gelu(layer.choose(x[..., :14])) * layer.carry(x[..., 14:]))
    return float((layer(x) - expected).abs().max())


@check("spark", "fresh weights choose about as many units as asked for: within a tenth", at_most=0.1)
@torch.no_grad()
def count() -> float:
    torch.manual_seed(0)
    layer = SparkFeedForward(config(hidden=2048, active=164)).double()
    return float(abs((layer.chosen(inputs()) > 0).sum(-1).double().mean() / 164 - 1))


@check(
    "spark",
    "with as many keys as tokens, attention is softmax(q1 k1) * softplus(q2 k2) over all of them",
    at_most=1e-12,
)
@torch.no_grad()
def all_keys() -> float:
    layer, x = attention(keys=30), inputs()
    q, k, v = (part(x).unflatten(-1, (2, -1)).transpose(1, 2) for part in (layer.query, layer.key, layer.value))
    scores = [rotate(a, 0) @ rotate(b, 0).mT * 8**-0.5 for a, b in zip(q.split(8, -1), k.split(8, -1), strict=True)]
    past = torch.ones(30, 30, dtype=torch.bool).tril()
    weights = scores[0].masked_fill(~past, -torch.inf).softmax(-1) * F.softplus(scores[1])
    expected = layer.out((weights @ v).transpose(1, 2).flatten(-2))
    return float((layer(x)[0] - expected).abs().max())


@check("spark", "attention reads in pieces as at once", at_most=1e-12)
@torch.no_grad()
def decoding() -> float:
    layer, parts, state = attention(), [], None
    for part in inputs().split([20, 1, 1, 8], 1):
        out, state = layer(part, state)
        parts.append(out)
    return float((torch.cat(parts, 1) - layer(inputs())[0]).abs().max())
