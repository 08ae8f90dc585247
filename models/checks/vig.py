"""What holds exactly for ViG."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..companion import check
from ..layers.pictures import ChannelNorm
from ..numbers import numbers
from ..remember import filled
from ..vig import BidirectionalMixer, VigBlock, both_directions


def inputs(tokens: int = 70) -> list[Tensor]:
    """q, k, v and the two log-decays."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, there, back = (torch.randn(2, 2, tokens, 8, generator=generator) for _ in range(5))
    return [q, k, v, torch.nn.functional.logsigmoid(there) / 4, torch.nn.functional.logsigmoid(back) / 4]


@check("vig", "both directions are sums over all tokens, each decayed by the gates between, in float64", at_most=1e-5)
@torch.no_grad()
def formula() -> float:
    q, k, v, there, back = (x.double() for x in inputs(20))
    expected = torch.zeros_like(v)
    for t in range(20):
        for s in range(20):
            if s <= t:
                decay = there[:, :, s + 1 : t + 1].sum(2).exp()
                expected[:, :, t] += (q[:, :, t] * k[:, :, s] * decay).sum(-1, keepdim=True) * v[:, :, s]
            if s >= t:
                decay = back[:, :, t:s].sum(2).exp()
                expected[:, :, t] += (q[:, :, t] * k[:, :, s] * decay).sum(-1, keepdim=True) * v[:, :, s]
    expected *= 8**-0.5 / 2
    return float((both_directions(*inputs(20)) - expected).abs().max())


@check("vig", "tokens in reverse and the two gates exchanged give the output in reverse", at_most=1e-5)
@torch.no_grad()
def reverse() -> float:
    q, k, v, there, back = inputs()
    out = both_directions(q, k, v, there, back)
    reversed_out = both_directions(*(x.flip(2) for x in (q, k, v, back, there)))
    return float((reversed_out.flip(2) - out).abs().max())


@check(
    "vig", "gates that forget nothing leave linear attention over all tokens, a token's own counted twice", at_most=1e-4
)
@torch.no_grad()
def linear() -> float:
    q, k, v, there, _ = inputs()
    nothing = torch.zeros_like(there)
    scores = q @ k.mT * 8**-0.5
    expected = (scores @ v + torch.diagonal(scores, dim1=-2, dim2=-1)[..., None] * v) / 2
    return float((both_directions(q, k, v, nothing, nothing) - expected).abs().max())


@check("vig", "a mixer sees the whole picture from every place (places that do not)")
def whole_picture() -> float:
    torch.manual_seed(0)
    mixer = BidirectionalMixer(8, 2, activated=False).double()
    missing = 0
    for place in ((0, 0), (5, 6), (2, 3)):
        x = torch.randn(1, 8, 6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
        mixer(x)[0, :, place[0], place[1]].square().sum().backward()
        assert x.grad is not None
        missing += int((x.grad[0] == 0).all(0).sum())
    return float(missing)


@check(
    "vig", "a block is its equations written out, on a map of 5 x 3: both gates, both norms, and SwiGLU", at_most=1e-12
)
@torch.no_grad()
def block() -> float:
    worst = 0.0
    for activated in (False, True):
        part, x = filled(VigBlock(8, 2, 12, ChannelNorm, activated=activated)), numbers((2, 8, 5, 3), 4)
        mixer = part.mixer
        bend = F.silu if activated else torch.Tensor.clone
        h = F.layer_norm(x.movedim(1, -1), (8,), part.norm1.weight, part.norm1.bias, part.norm1.eps).movedim(-1, 1)
        h = bend(F.conv2d(h, mixer.local.weight, padding=1, groups=8)).flatten(2).mT
        q, k, v, mixed = (_heads(layer(h)) for layer in (mixer.query, mixer.key, mixer.value, mixer.gate))
        there, back = (_heads(-F.softplus(-d) / 16) for d in mixer.decay(h).chunk(2, -1))
        summed, a = torch.zeros_like(v), 1 / (1 + (-mixed).exp())
        for t in range(15):
            for s in range(15):
                past, next_ = there[:, :, s + 1 : t + 1].sum(2).exp(), back[:, :, t:s].sum(2).exp()
                decay = past * (s <= t) + next_ * (s >= t)
                summed[:, :, t] += (q[:, :, t] * k[:, :, s] * decay).sum(-1, keepdim=True) * v[:, :, s] / 2 / 2**0.5
        y = _rms(summed) * mixer.norm.weight * a + _rms(_heads(h)) * mixer.local_norm.weight * (1 - a)
        y = mixer.out(bend(y.transpose(1, 2).flatten(-2)))
        y = x.movedim(1, -1) + y.unflatten(1, (5, 3))
        h = F.layer_norm(y, (8,), part.norm2.weight, part.norm2.bias, part.norm2.eps)
        expected = (y + part.down(F.silu(part.gate(h)) * part.up(h))).movedim(-1, 1)
        worst = max(worst, float((part(x) - expected).abs().max() / expected.abs().max()))
    return worst


def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, -1)).transpose(1, 2)


def _rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
