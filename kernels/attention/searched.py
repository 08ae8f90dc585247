"""Dense attention whose weights are added up by block while they are there: output, log-sum-exp and mass in one pass.

A search needs all three. Apart, the mass works out every weight a second time, which costs as much as the attention
itself where heads are narrow.

Shapes: B batch, H query heads, G key heads, N queries, M keys, D width, R x C blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..block_index import BlockIndex, check_key_lengths
from .dense import dense_attention
from .inputs import check_attention, scale_or_default
from .mass import MASS, block_mass
from .torch import sparse_with_mass


def searched_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    query_block: int,
    key_block: int,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `dense_attention` and, with its log-sum-exp, `block_mass` give: (output, LSE, mass).

    Shapes: q (B, H, N, D), k and v (B, G, M, D) -> (B, H, N, D), (B, H, N), float32 (B, H, R, C).

    In one pass where plain torch on a processor does the mass, and one after the other where kernels do.

    Args and raises: as those.
    """
    rest = (q, k, q.new_empty(q.shape[:3]), query_block, key_block)
    if q.device.type == "cpu" and MASS.choose(*rest).name == "torch" and not torch.is_grad_enabled():
        check_attention(q, k, v)
        check_key_lengths(key_lengths, q.shape[0], q.device)
        everything = BlockIndex.full(
            q.shape[0],
            1,
            queries=q.shape[2],
            keys=k.shape[2],
            query_block=query_block,
            key_block=key_block,
            key_lengths=key_lengths,
        )
        return sparse_with_mass(q, k, v, everything, scale=scale_or_default(scale, q.shape[-1]))
    out, lse = dense_attention(q, k, v, scale=scale, key_lengths=key_lengths, return_lse=True)
    mass = block_mass(q, k, lse, query_block=query_block, key_block=key_block, scale=scale, key_lengths=key_lengths)
    return out, lse, mass
