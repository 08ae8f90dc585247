"""The truth every backend is tested against: dense, masked, in float64, and as large as the attention matrix.

Shapes: B batch, H query heads, G key heads, J head groups of the index, N queries, M keys, D width, R x C blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..block_index import BlockIndex
from .inputs import scale_or_default


def reference_dense(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, key_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T scale) v and the natural log of the softmax's denominator, both float64.

    Shapes: q (B, H, N, D), k and v (B, G, M, D) -> (B, H, N, D), (B, H, N).
    """
    return _attend(q, k, v, valid_keys(key_lengths, k.shape[2]), scale)


def reference_sparse(
    q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """The same over the kept blocks only; a row without any has output 0 and LSE -inf."""
    return _attend(q, k, v, index.dense_mask().repeat_interleave(q.shape[1] // index.groups, 1), scale)


def reference_mass(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    *,
    query_block: int,
    key_block: int,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
) -> Tensor:
    """sum of exp(q k^T scale - lse) over every block, float64 (B, H, R, C); 0 where LSE is -inf."""
    scores_BHNM = _scores(q, k, valid_keys(key_lengths, k.shape[2]), scale)
    lse = lse.double().masked_fill(lse == -torch.inf, torch.inf)
    weights_BHNM = (scores_BHNM - lse[..., None]).exp()
    by_columns = torch.stack([part.sum(-1) for part in weights_BHNM.split(key_block, -1)], -1)
    return torch.stack([part.sum(-2) for part in by_columns.split(query_block, -2)], -2)


def valid_keys(key_lengths: Tensor | None, keys: int) -> Tensor | None:
    """bool (B, 1, 1, M): True before the end of every batch row's keys; None where all are valid."""
    if key_lengths is None:
        return None
    return (torch.arange(keys, device=key_lengths.device) < key_lengths[:, None])[:, None, None]


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    k = k.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = q.double() @ k.mT * scale_or_default(scale, q.shape[-1])
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> tuple[Tensor, Tensor]:
    scores = _scores(q, k, mask, scale)
    lse = scores.logsumexp(-1)
    weights = (scores - lse.masked_fill(lse == -torch.inf, torch.inf)[..., None]).exp()
    return weights @ v.double().repeat_interleave(q.shape[1] // v.shape[1], 1), lse
