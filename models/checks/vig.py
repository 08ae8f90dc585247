"""What holds exactly for ViG."""

from __future__ import annotations

import torch
from torch import Tensor

from ..companion import check
from ..vig import BidirectionalMixer, Vig, VigConfig, both_directions


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
    "vig", "the hierarchical model takes pictures of any size: finite logits, one set a picture (pictures that fail)"
)
@torch.no_grad()
def any_size() -> float:
    torch.manual_seed(0)
    model = Vig(VigConfig(widths=(8, 16), depths=(1, 1), heads=(1, 2), activated=False, classes=5))
    outs = [model(torch.ones(2, 3, *size)) for size in ((32, 32), (33, 50))]
    return float(sum(tuple(out.shape) != (2, 5) or not bool(out.isfinite().all()) for out in outs))
