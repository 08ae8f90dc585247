"""What holds exactly for CRATE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...kernels.attention import attend
from ..companion import check
from ..crate import CrateConfig, CrateLayer, SparseCoding, SubspaceAttention, coding_rate, compression_step, sparse_step
from ..remember import filled


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bases() -> Tensor:
    """Four orthonormal bases of 16 dimensions that together span 64."""
    return torch.linalg.qr(normal(64, 64))[0].unflatten(0, (4, 16))


@check("crate", "the paper's step lowers the coding rate, for steps from 0.05 to 1 (how many raise it)")
def lowers() -> float:
    z, U = normal(50, 64, seed=1), bases()
    before = coding_rate(z, U)
    return float(sum(coding_rate(compression_step(z, U, step=step), U) >= before for step in (0.05, 0.2, 0.5, 1.0)))


@check("crate", "attention added as it is raises the coding rate, and a norm takes it down again (1 if not)")
def residual_raises() -> float:
    z, U = normal(50, 64, seed=1), bases()
    w = z @ U.mT
    added = z + ((w @ w.mT / 4).softmax(-1) @ w @ U).sum(0)
    rates = [float(coding_rate(x, U)) for x in (z, added, torch.nn.functional.layer_norm(added, (64,)))]
    return float(not (rates[1] > rates[0] and rates[2] < rates[1]))


@check(
    "crate", "with an orthonormal dictionary the coding rate of all bases at once is that of the tokens", at_most=1e-9
)
def rate_formula() -> float:
    z, whole = normal(30, 8, seed=2), torch.linalg.qr(normal(8, 8))[0][None]
    expected = torch.logdet(torch.eye(30, dtype=z.dtype) + z @ z.T * (8 / (30 * 0.25))) / 2
    return float((coding_rate(z, whole) - expected).abs())


@check("crate", "steps of sparse coding never go uphill where they are at most 1 / L", at_most=1e-12)
def downhill() -> float:
    x, D = normal(20, 12, seed=3), normal(12, 12, seed=4)
    step = 1 / float(torch.linalg.matrix_norm(D, 2) ** 2)
    code, worst = x.relu(), 0.0
    loss = _objective(code, x, D)
    for _ in range(30):
        code = sparse_step(code, x, D, step=step, sparsity=0.3)
        after = _objective(code, x, D)
        worst, loss = max(worst, float((after - loss).max())), after
    return worst


@check(
    "crate",
    "a layer's sparse coding is one step from the token itself: relu(z + eta (D'z - D'Dz) - eta lambda)",
    at_most=1e-5,
)
@torch.no_grad()
def one_step() -> float:
    torch.manual_seed(0)
    part, z = SparseCoding(12, 0.1, 0.2), normal(5, 12).float()
    D = part.dictionary
    return float((part(z) - (z + 0.1 * (z @ D - z @ D.T @ D) - 0.1 * 0.2).relu()).abs().max())


@check("crate", "subspace attention is attention whose queries, keys and values are one", at_most=1e-6)
@torch.no_grad()
def one_projection() -> float:
    torch.manual_seed(0)
    part, z = SubspaceAttention(16, 2), normal(2, 7, 16).float()
    w = part.subspaces(z).unflatten(-1, (2, 8)).transpose(1, 2)
    weights = (w @ w.mT / 8**0.5).softmax(-1)
    same = float((attend(w, w, w) - weights @ w).abs().max())
    return max(same, float((part(z) - part.out((weights @ w).transpose(1, 2).flatten(-2))).abs().max()))


@check(
    "crate",
    "a layer is its equations written out: compression beside the token, then coding in its place",
    at_most=1e-12,
)
@torch.no_grad()
def layer() -> float:
    config = CrateConfig(width=8, layers=1, heads=2, picture=16, patch=4, step=0.3, sparsity=0.2)
    part, z = filled(CrateLayer(config)), normal(2, 7, 8)
    w = (norm_of(z, part.norm1) @ part.attention.subspaces.weight.T).unflatten(-1, (2, 4)).transpose(1, 2)
    weights = (w @ w.mT / 2).exp()
    attended = (weights / weights.sum(-1, keepdim=True) @ w).transpose(1, 2).flatten(-2)
    z1 = z + attended @ part.attention.out.weight.T + part.attention.out.bias
    n, D = norm_of(z1, part.norm2), part.coding.dictionary
    expected = (n + 0.3 * (n - n @ D.T) @ D - 0.3 * 0.2).clamp(min=0)
    return float((part(z) - expected).abs().max() + (not 0.2 < float((expected == 0).double().mean()) < 0.8))


def norm_of(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def _objective(code: Tensor, x: Tensor, D: Tensor) -> Tensor:
    return (x - code @ D.T).square().sum(-1) / 2 + 0.3 * code.abs().sum(-1)
