"""Recursive gating: features are multiplied by one gate after another, each wider, for interactions of high order.

Source: Rao et al., 2022, arXiv:2207.14284, equations 3 and 4.
Shapes: B batch, Y X grid, C_k channels of order k.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ..inputs import check_one_type


def recursive_gating(first: Tensor, gates: Sequence[Tensor], mixes: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
    """y = first * gates[0], then y = (mix y) * gate for every further gate: of degree 1 + len(gates) in its inputs.

    Shapes: first and gates[0] (B, C_0, Y, X), gates[k] (B, C_k, Y, X) -> (B, C_n, Y, X) of the last.

    Args:
        mixes: (matrix (C_k, C_k-1), bias (C_k) or None) for every gate but the first.

    Raises: ConfigError: shapes that do not fit together.
    """
    _check(first, gates, mixes)
    y = first * gates[0]
    for gate, (weight, bias) in zip(gates[1:], mixes, strict=True):
        y = F.conv2d(y, weight[..., None, None], bias) * gate
    return y


def reference_recursive_gating(
    first: Tensor, gates: Sequence[Tensor], mixes: Sequence[tuple[Tensor, Tensor | None]]
) -> Tensor:
    """The same as sums, float64."""
    y = first.double() * gates[0].double()
    for gate, (weight, bias) in zip(gates[1:], mixes, strict=True):
        y = torch.einsum("oc,bcyx->boyx", weight.double(), y)
        y = (y if bias is None else y + bias.double()[:, None, None]) * gate.double()
    return y


def _check(first: Tensor, gates: Sequence[Tensor], mixes: Sequence[tuple[Tensor, Tensor | None]]) -> None:
    if not gates or len(mixes) != len(gates) - 1 or first.ndim != 4 or first.shape != gates[0].shape:
        raise ConfigError(
            "recursive gating takes features (batch, channels, rows, columns), a first gate of their shape, and a "
            f"matrix for every further gate, not {tuple(first.shape)}, {[tuple(gate.shape) for gate in gates]} and "
            f"{len(mixes)} matrices"
        )
    check_one_type("recursive gating", first=first, **{f"gate {k}": gate for k, gate in enumerate(gates)})
    for before, gate, (weight, bias) in zip(gates, gates[1:], mixes, strict=False):
        into = (gate.shape[1], before.shape[1])
        if tuple(weight.shape) != into or (bias is not None and tuple(bias.shape) != into[:1]):
            raise ConfigError(
                f"the matrix before a gate of {into[0]} channels must be {into}, not {tuple(weight.shape)}"
            )
        check_one_type("recursive gating", first=first, matrix=weight, bias=bias)
        if gate.shape[2:] != first.shape[2:] or gate.shape[0] != first.shape[0]:
            raise ConfigError(f"gates must have the grid of the features {first.shape}, not {tuple(gate.shape)}")
