"""Block mass in plain torch: tiles of scores that stay in the cache, summed by a product as they are made."""

from __future__ import annotations

import torch
from torch import Tensor

TILE_BYTES = 1 << 20
"""What a tile of scores may take: half of a usual second-level cache."""
TILE_QUERIES = 256
NEGLIGIBLE = -80.0
"""exp of less is as good as 0, and many times slower to compute where it is below the smallest float32."""


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
    (batch, heads, queries, width), (_, key_heads, keys, _) = q.shape, k.shape
    dtype = torch.promote_types(q.dtype, torch.float32)
    rows, columns = -(-queries // query_block), -(-keys // key_block)
    lengths = [keys] * batch if key_lengths is None else key_lengths.clamp(0, keys).tolist()
    step = max(1, TILE_QUERIES // query_block) * query_block
    tile = max(1, TILE_BYTES // (dtype.itemsize * step))
    with torch.no_grad():
        found = q.new_empty(batch, heads, rows, columns, dtype=torch.float32)
        scores = q.new_empty(step * tile, dtype=dtype)
        # One more column takes the LSE off within the product: [q, -lse] [k, 1]^T.
        longer_keys = q.new_ones(keys, width + 1, dtype=dtype)
        longer_queries = q.new_zeros(rows * query_block, width + 1, dtype=dtype)
        by_key = q.new_zeros(rows, columns * key_block, dtype=dtype)
        counted = q.new_zeros(rows * query_block, dtype=dtype)
        belongs = torch.arange(step, device=q.device) // query_block
        belongs = (belongs == torch.arange(step // query_block, device=q.device)[:, None]).to(dtype)
        for b, length in enumerate(lengths):
            by_key[:, length:] = 0.0
            for h in range(heads):
                if h % (heads // key_heads) == 0:
                    longer_keys[:, :width].copy_(k[b, h // (heads // key_heads)])
                empty = lse[b, h] == -torch.inf
                longer_queries[:queries, :width].copy_(q[b, h]).mul_(scale)
                longer_queries[:queries, width] = -lse[b, h].masked_fill(empty, 0.0)
                counted[:queries] = (~empty).to(dtype)
                for start in range(0, rows * query_block, step):
                    some = longer_queries[start : start + step]
                    adds = belongs[: len(some) // query_block, : len(some)] * counted[start : start + step]
                    into = by_key[start // query_block : (start + len(some)) // query_block]
                    for at in range(0, length, tile):
                        end = min(length, at + tile)
                        part = scores[: len(some) * (end - at)].view(len(some), end - at)
                        torch.mm(some, longer_keys[at:end].t(), out=part)
                        into[:, at:end] = adds @ part.clamp_(min=NEGLIGIBLE).exp_()
                found[b, h] = by_key.view(rows, columns, key_block).sum(-1)
    return found
