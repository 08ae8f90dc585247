"""Block mass in plain torch, a few queries at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def mass(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    *,
    query_block: int,
    key_block: int,
    scale: float,
    key_lengths: Tensor | None,
) -> Tensor:
    """float32 (B, H, R, C)."""
    rows, columns = -(-q.shape[2] // query_block), -(-k.shape[2] // key_block)
    found = q.new_zeros(*q.shape[:2], rows, columns, dtype=torch.float32)
    for b in range(q.shape[0]):
        valid = k.shape[2] if key_lengths is None else int(key_lengths[b])
        for h in range(q.shape[1]):
            keys = k[b, h * k.shape[1] // q.shape[1], :valid].float()
            limits = lse[b, h].masked_fill(lse[b, h] == -torch.inf, torch.inf)
            for r in range(rows):
                some = slice(r * query_block, (r + 1) * query_block)
                by_key = (q[b, h, some].float() @ keys.mT * scale - limits[some, None]).exp().sum(0)
                pieces = torch.nn.functional.pad(by_key, (0, columns * key_block - valid)).view(columns, key_block)
                found[b, h, r] = pieces.sum(-1)
    return found
