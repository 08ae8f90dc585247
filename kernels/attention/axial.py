"""Attention among the slices of a grid along one axis: each row, column or frame is a token, the mean of its positions.

Two such calls give every position of Y X what all rows and all columns say at a cost of Y^2 + X^2, not (Y X)^2.

Source: Elhassan et al., 2023, arXiv:2310.15025 (pooled rows and columns); Ho et al., 2019, arXiv:1912.12180 (axes).
Shapes: B batch, H heads, G any axes of a grid, L positions along the chosen one, D width of keys, V width of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError
from ..inputs import check_one_type
from .attend import attend


def axial_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    axis: int,
    positions: tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
) -> Tensor:
    """softmax((q + p) (k + p')^T scale) v of the means of q, k and v over all axes of the grid but one.

    Shapes: q and k (B, H, *G, D), v (B, H, *G, V) -> (B, H, L, V).

    Args:
        axis: which axis of the grid is kept, from 0: in a picture 0 makes tokens of rows, 1 of columns.
        positions: p and p', each (H, L, D), added to the means of q and of k.
        scale: of the scores; 1 / sqrt(D) where None.

    Raises: ConfigError: shapes or an axis that do not fit together.
    """
    _check(q, k, v, axis, positions)
    others = [2 + other for other in range(q.ndim - 3) if other != axis]
    q, k, v = (x.mean(others) if others else x for x in (q, k, v))
    if positions is not None:
        q, k = q + positions[0], k + positions[1]
    return attend(q, k, v, scale=scale)


def reference_axial_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    axis: int,
    positions: tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
) -> Tensor:
    """The same slice by slice, float64."""

    def slices(x: Tensor) -> Tensor:
        parts = (x.double().select(2 + axis, place) for place in range(x.shape[2 + axis]))
        return torch.stack([part.reshape(*x.shape[:2], -1, x.shape[-1]).mean(2) for part in parts], 2)

    factor = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (slices(x) for x in (q, k, v))
    if positions is not None:
        q, k = q + positions[0].double(), k + positions[1].double()
    return torch.einsum("bhld,bhmd->bhlm", q, k).mul(factor).softmax(-1) @ v


def _check(q: Tensor, k: Tensor, v: Tensor, axis: int, positions: tuple[Tensor, Tensor] | None) -> None:
    if q.ndim < 4 or q.shape != k.shape or v.shape[:-1] != q.shape[:-1] or 0 in q.shape:
        raise ConfigError(
            "attention along an axis takes q, k and v of shape (batch, heads, axes of the grid, width), none of them "
            f"empty, not {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    check_one_type("attention along an axis", q=q, k=k, v=v)
    if not 0 <= axis < q.ndim - 3:
        raise ConfigError(f"the axes of this grid are 0 to {q.ndim - 4}, not {axis}")
    wanted = (q.shape[1], q.shape[2 + axis], q.shape[-1])
    if positions is not None and any(tuple(part.shape) != wanted for part in positions):
        raise ConfigError(
            f"positions of queries and keys have shape {wanted}, not {[tuple(p.shape) for p in positions]}"
        )
