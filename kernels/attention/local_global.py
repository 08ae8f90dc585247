"""Attention without a softmax: squared scores within groups of neighbours, and a linear state over everything.

Source: Hua et al., 2022, arXiv:2202.10447 (FLASH); Zhao and Ma, 2023, arXiv:2302.11824, equations 6 to 9.
Shapes: B batch, N tokens, D width of keys, V width of values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError


def local_global_attention(
    q: Tensor, k: Tensor, v: Tensor, *, group: int, q_global: Tensor | None = None, k_global: Tensor | None = None
) -> Tensor:
    """relu(q k^T / group)^2 v within each group of tokens, plus q_global (k_global^T v) / N over all of them.

    Linear in N: a token's cost is that of its group and of the state. A last group that is not full is no exception.

    Shapes: q and k (B, N, D), q_global and k_global (B, N, D'), v (B, N, V) -> (B, N, V).

    Args:
        group: tokens that attend to each other; scores are divided by it, not by the square root of D.
        q_global: with `k_global`, what reads the state of all tokens; without them there is no second part.

    Raises: ConfigError: shapes, types or a group that do not fit together.
    """
    _check(q, k, v, group, q_global, k_global)
    tokens = q.shape[1]
    size = min(group, tokens)
    # keys of the padding are 0, and so are their scores: nothing has to be masked
    near_q, near_k, near_v = (F.pad(x, (0, 0, 0, -tokens % size)).unflatten(1, (-1, size)) for x in (q, k, v))
    out = ((near_q @ near_k.mT / group).relu().square() @ near_v).flatten(1, 2)[:, :tokens]
    if q_global is None or k_global is None:
        return out
    return out + q_global @ (k_global.mT @ v / tokens)


def reference_local_global_attention(
    q: Tensor, k: Tensor, v: Tensor, *, group: int, q_global: Tensor | None = None, k_global: Tensor | None = None
) -> Tensor:
    """The same by a weight for every pair of tokens, float64."""
    q, k, v = q.double(), k.double(), v.double()
    groups = torch.arange(q.shape[1], device=q.device) // group
    weights = torch.einsum("bnd,bmd->bnm", q, k).div(group).clamp(min=0).pow(2) * (groups[:, None] == groups)
    if q_global is not None and k_global is not None:
        weights = weights + torch.einsum("bnd,bmd->bnm", q_global.double(), k_global.double()) / q.shape[1]
    return torch.einsum("bnm,bmv->bnv", weights, v)


def _check(q: Tensor, k: Tensor, v: Tensor, group: int, q_global: Tensor | None, k_global: Tensor | None) -> None:
    if (q_global is None) != (k_global is None):
        raise ConfigError("the state of all tokens takes both q_global and k_global, or neither")
    for name, one, other in (("q and k", q, k), ("q_global and k_global", q_global, k_global)):
        if one is not None and other is not None and (one.ndim != 3 or one.shape != other.shape):
            raise ConfigError(f"{name} have one shape (batch, tokens, width), not {one.shape} and {other.shape}")
    parts = [x for x in (q, k, v, q_global, k_global) if x is not None]
    if v.ndim != 3 or any(x.shape[:2] != q.shape[:2] for x in parts) or q.shape[1] < 1:
        raise ConfigError(f"all have one batch and at least one token, not {[tuple(x.shape) for x in parts]}")
    if any(x.dtype != q.dtype or x.device != q.device or not x.is_floating_point() for x in parts):
        raise ConfigError(f"all are of one floating-point type on one device, not {[str(x.dtype) for x in parts]}")
    if group < 1:
        raise ConfigError(f"a group has at least 1 token, not {group}")
