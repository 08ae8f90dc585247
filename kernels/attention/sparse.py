"""Attention over the kept blocks of a `BlockIndex`.

Shapes: B batch, H query heads, G key heads, N queries, M keys, D width. LSE is a natural logarithm, float32, (B, H, N).
"""

from __future__ import annotations

from torch import Tensor

from ..block_index import BlockIndex
from ..dispatch import OPERATIONS, Backend, Operation, deferred
from ..triton_limits import triton_backend
from .dense import dense_attention
from .inputs import check_attention, check_index, scale_or_default
from .reference import reference_sparse
from .torch import sparse as torch_sparse
from .torch import sparse_refuses as torch_refuses

PACKAGE = __name__.rpartition(".")[0]
TRITON = f"{PACKAGE}.triton"


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: BlockIndex,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(q k^T scale) v over the kept blocks only; where all are kept, `dense_attention`, bit for bit.

    Shapes: q (B, H, N, D), k and v (B, G, M, D), H a multiple of G and of the index's head groups, any strides ->
    (B, H, N, D) of q's type; a query without a kept block gets 0, and an LSE of -inf.

    Args:
        index: the kept blocks; its `key_lengths`, if any, hide padding.
        scale: of the scores; 1 / sqrt(D) where None.
        return_lse: give (output, LSE): the log of every query's softmax denominator over the kept blocks. With the
            dense LSE it tells the recall: exp(LSE_sparse - LSE_dense) is the attention mass that was kept.
        backend: "auto", or a name in `SPARSE.names()`.

    Raises: ConfigError, UnknownNameError, MissingDependencyError: see `Operation.choose`.
    """
    check_attention(q, k, v)
    check_index(index, q, k)
    if backend == "auto" and index.is_full:
        return dense_attention(q, k, v, scale=scale, key_lengths=index.key_lengths, return_lse=return_lse)
    scale = scale_or_default(scale, q.shape[-1])
    out, lse = SPARSE.run(
        lambda run: run(q, k, v, index, scale=scale, return_lse=return_lse),
        *(q, k, v, index, return_lse),
        backend=backend,
    )
    return (out, lse) if return_lse else out


def _reference(
    q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, *, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor]:
    out, lse = reference_sparse(q, k, v, index, scale=scale)
    return out.to(q.dtype), lse.float()


SPARSE = OPERATIONS.add(
    "sparse attention",
    Operation(
        name="sparse attention",
        backends=[
            triton_backend(TRITON, refuses="sparse_refuses", run=deferred(TRITON, "sparse")),
            Backend(
                name="flex",
                run=deferred(f"{PACKAGE}.flex", "sparse"),
                refuses=deferred(f"{PACKAGE}.flex", "sparse_refuses"),
                hesitates=lambda q, *_: None if q.device.type == "cuda" else "compiling it takes 20 s and more",
            ),
            Backend(name="torch", run=torch_sparse, refuses=torch_refuses),
            Backend(name="reference", run=_reference, hesitates=lambda *_: "it is dense, in float64, for tests"),
        ],
    ),
)
