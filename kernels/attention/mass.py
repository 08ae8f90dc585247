"""How much attention every block of keys gets from every block of queries, exactly, without the attention matrix.

Shapes: B batch, H query heads, G key heads, N queries, M keys, D width, R x C blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError
from ..block_index import check_blocks, check_key_lengths
from ..dispatch import OPERATIONS, Backend, Operation, deferred
from ..triton_limits import triton_backend
from .inputs import check_query_and_key, scale_or_default
from .reference import reference_mass
from .torch_mass import mass as torch_mass

TRITON = f"{__name__.rpartition('.')[0]}.triton"


def block_mass(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    *,
    query_block: int,
    key_block: int,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """sum of exp(q k^T scale - lse) over the tokens of every block.

    With the LSE of the same q and k it is attention mass: a row of blocks sums to the queries in it (to 0 where their
    LSE is -inf). With an older LSE it still ranks blocks, but is no longer a probability.

    Source: Xia et al., AdaSpa (2025, arXiv:2502.21079), equation 13 and algorithms 1 and 2 (which print log for exp).

    Shapes: q (B, H, N, D), k (B, G, M, D), lse (B, H, N) -> float32 (B, H, R, C).

    Args:
        lse: natural log of the softmax denominators, as `dense_attention(..., return_lse=True)` gives them.
        query_block, key_block: tokens in a block.
        scale: of the scores; 1 / sqrt(D) where None.
        key_lengths: integers (B): keys from there on are padding and get nothing.
        backend: "auto", or a name in `MASS.names()`.

    Raises: ConfigError, UnknownNameError, MissingDependencyError: see `Operation.choose`.
    """
    check_query_and_key(q, k)
    check_blocks(query_block, key_block)
    check_key_lengths(key_lengths, q.shape[0], q.device)
    if lse.shape != q.shape[:3] or lse.device != q.device:
        raise ConfigError(
            f"the LSE must be {tuple(q.shape[:3])} on {q.device}, as dense_attention gives it, not {tuple(lse.shape)} "
            f"on {lse.device}"
        )
    scale = scale_or_default(scale, q.shape[-1])
    return MASS.run(
        lambda run: run(
            q, k, lse.float(), query_block=query_block, key_block=key_block, scale=scale, key_lengths=key_lengths
        ),
        *(q, k, lse, query_block, key_block),
        backend=backend,
    )


def _reference(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    *,
    query_block: int,
    key_block: int,
    scale: float,
    key_lengths: Tensor | None,
) -> Tensor:
    return reference_mass(
        q, k, lse, query_block=query_block, key_block=key_block, scale=scale, key_lengths=key_lengths
    ).to(torch.float32)


MASS = OPERATIONS.add(
    "block mass",
    Operation(
        name="block mass",
        backends=[
            triton_backend(TRITON, refuses="mass_refuses", run=deferred(TRITON, "mass")),
            Backend(name="torch", run=torch_mass),
            Backend(name="reference", run=_reference, hesitates=lambda *_: "it is dense, in float64, for tests"),
        ],
    ),
)
