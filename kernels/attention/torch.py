"""Block-sparse attention in plain torch: gather the kept keys of a row of blocks, attend to them, next row.

Shapes: B batch, H query heads, G key heads, N queries, M keys, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..block_index import BlockIndex


def sparse(
    q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, *, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor]:
    """Output (B, H, N, D) of q's type and LSE float32 (B, H, N)."""
    out, lse = torch.zeros_like(q), q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
    indptr, valid = index.indptr.tolist(), index.valid_keys().tolist()
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            pointers, g = indptr[b][h * index.groups // q.shape[1]], h * k.shape[1] // q.shape[1]
            for r in range(index.rows):
                columns = index.indices[pointers[r] : pointers[r + 1]]
                tokens = (columns[:, None] * index.key_block + torch.arange(index.key_block, device=q.device)).flatten()
                tokens = tokens[tokens < valid[b]]
                if not tokens.numel():
                    continue
                rows = slice(r * index.query_block, (r + 1) * index.query_block)
                scores = (q[b, h, rows].float() @ k[b, g, tokens].float().mT) * scale
                lse[b, h, rows] = scores.logsumexp(-1)
                out[b, h, rows] = (scores.softmax(-1) @ v[b, g, tokens].float()).to(q.dtype)
    return out, lse
