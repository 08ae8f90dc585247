"""What every attention takes, checked once at the door: one clear line instead of a traceback from inside a kernel."""

from __future__ import annotations

import math

from torch import Tensor

from ...errors import ConfigError
from ..block_index import BlockIndex

WIDE = 4
"""(batch, heads, tokens, width)."""


def check_query_and_key(q: Tensor, k: Tensor) -> None:
    """Raises: ConfigError where q (B, H, N, D) and k (B, G, M, D) do not fit together."""
    if q.ndim != WIDE or k.ndim != WIDE:
        raise ConfigError(
            f"attention takes tensors of shape (batch, heads, tokens, width), not {tuple(q.shape)} and {tuple(k.shape)}"
        )
    if q.device != k.device:
        raise ConfigError(f"queries are on {q.device} and keys on {k.device}; move them to one device")
    if q.dtype != k.dtype or not q.is_floating_point():
        raise ConfigError(f"queries and keys must be of one floating-point type, not {q.dtype} and {k.dtype}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ConfigError(
            f"queries {tuple(q.shape)} and keys {tuple(k.shape)} must have the same batch and the same width of heads"
        )
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise ConfigError(f"{q.shape[1]} query heads cannot share {k.shape[1]} key heads evenly")


def check_attention(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raises: ConfigError where q (B, H, N, D), k and v (B, G, M, D) do not fit together."""
    check_query_and_key(q, k)
    if v.shape != k.shape or v.dtype != k.dtype or v.device != k.device:
        raise ConfigError(
            f"values must be like keys, {tuple(k.shape)} {k.dtype} on {k.device}, not {tuple(v.shape)} {v.dtype} on "
            f"{v.device}"
        )


def check_index(index: BlockIndex, q: Tensor, k: Tensor) -> None:
    """Raises: ConfigError where `index` was made for other inputs."""
    if index.device != q.device:
        raise ConfigError(f"the index is on {index.device} and queries on {q.device}; use index.to('{q.device}')")
    if index.batch != q.shape[0]:
        raise ConfigError(
            f"the index is for {index.batch} batch rows, the queries have {q.shape[0]}; index.select takes some of "
            "its rows and BlockIndex.cat joins several"
        )
    if (index.queries, index.keys) != (q.shape[2], k.shape[2]):
        raise ConfigError(
            f"the index is for {index.queries} queries and {index.keys} keys, not {q.shape[2]} and {k.shape[2]}; build "
            "one for these"
        )
    if q.shape[1] % index.groups:
        raise ConfigError(f"{q.shape[1]} heads cannot share the {index.groups} head groups of the index evenly")


def scale_or_default(scale: float | None, width: int) -> float:
    """`scale`, or 1 / sqrt(width)."""
    return 1.0 / math.sqrt(width) if scale is None else scale
