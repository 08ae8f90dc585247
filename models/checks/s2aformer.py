"""What holds exactly for the reconstruction of S2AFormer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...kernels.attention import attend
from ..companion import MODELS, check
from ..layers.pictures import tokens_of
from ..s2aformer import S2AFormer, S2AFormerConfig, StripAttention

GIGA_MULTIPLICATIONS = {"mini": 0.43, "s": 1.38}
"""What the paper prints for pictures of 224 x 224."""


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def multiplications(model: torch.nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() // 2


@check("s2aformer", "with keys as wide as a head and a grid that is not made coarser, it is attention", at_most=1e-12)
@torch.no_grad()
def full() -> float:
    torch.manual_seed(0)
    part, x = StripAttention(12, 3, 1, key_width=4).double(), normal(2, 12, 3, 5)
    tokens = tokens_of(x)
    q, k, v = (f(tokens).unflatten(-1, (3, 4)).transpose(1, 2) for f in (part.query, part.key, part.value))
    expected = part.out(attend(q, k, v).transpose(1, 2).flatten(2)).mT.unflatten(-1, (3, 5))
    return float((part(x) - expected).abs().max())


@check("s2aformer", "scores of a strip head have rank 1: largest second singular value over the first", at_most=1e-12)
@torch.no_grad()
def rank() -> float:
    torch.manual_seed(0)
    part, x = StripAttention(12, 3, 2).double(), normal(1, 12, 4, 6)
    q, k = part.query(tokens_of(x)), part.key(tokens_of(part.reduce(x)))
    values = torch.linalg.svdvals(torch.einsum("bnh,bmh->bhnm", q, k))
    return float((values[..., 1] / values[..., 0]).max())


@check("s2aformer", "every query ranks the keys of a head alike or in reverse")
@torch.no_grad()
def ranking() -> float:
    torch.manual_seed(0)
    part, x = StripAttention(12, 3, 2).double(), normal(1, 12, 4, 6)
    q, k = part.query(tokens_of(x)), part.key(tokens_of(part.reduce(x)))
    order = torch.einsum("bnh,bmh->bhnm", q, k).argsort(-1)
    ascending = k.mT.argsort(-1)[:, :, None]
    return float((order != torch.where(q.mT[..., None] > 0, ascending, ascending.flip(-1))).sum())


@check(
    "s2aformer", "attention costs N C H + M (C H + C^2) + N M (H + C) + N C^2 multiplications, and C r^2 M to reduce"
)
def cost() -> float:
    heads, width, reduction, rows, columns = 2, 16, 4, 8, 16
    with torch.device("meta"):
        part, x = StripAttention(width, heads, reduction), torch.empty(1, width, rows, columns)
    n, m = rows * columns, rows * columns // reduction**2
    parts = n * width * heads, m * (width * heads + width**2), n * m * (heads + width), n * width**2
    return abs(multiplications(part, x) - sum(parts) - width * reduction**2 * m)


@check("s2aformer", "multiplications of mini and s are the paper's, as a share of them", at_most=0.006)
def printed() -> float:
    worst = 0.0
    for name, said in GIGA_MULTIPLICATIONS.items():
        with torch.device("meta"):
            model, x = S2AFormer(MODELS["s2aformer"].sizes[name].config).eval(), torch.empty(1, 3, 224, 224)
        worst = max(worst, abs(multiplications(model, x) / 1e9 / said - 1))
    return worst


@check("s2aformer", "parameters of the five sizes are the paper's, as a share of them", at_most=0.006)
def parameters() -> float:
    sizes = MODELS["s2aformer"].sizes.values()
    return max(abs(size.parameters / 1e6 / float(size.said.partition("M")[0]) - 1) for size in sizes)


@check("s2aformer", "pictures of other sizes, not square either: finite logits")
@torch.no_grad()
def any_size() -> float:
    torch.manual_seed(0)
    model = S2AFormer(S2AFormerConfig(widths=(4, 8, 16, 32), depths=(1, 1, 1, 1), classes=7)).eval()
    outs = [model(normal(1, 3, *size).float()) for size in ((32, 32), (64, 96))]
    return float(sum(tuple(out.shape) != (1, 7) or not bool(out.isfinite().all()) for out in outs))
