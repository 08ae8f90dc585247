"""Tokens sorted by the expert they go to, and back: every expert then finds its rows next to each other.

Shapes: E experts, N tokens, K experts a token, R = N K rows, each one token on its way through one expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Routing:
    """Which row is which token's; rows of one expert keep the order of their tokens."""

    token_R: Tensor
    """int64: the token of every row."""
    choice_R: Tensor
    """int64: place of the row in the flattened choices (N, K)."""
    expert_R: Tensor
    """int64: the expert of every row, ascending."""
    row_NK: Tensor
    """int64: the row of every choice."""
    ends_E: Tensor
    """int32: the row after the last one of every expert."""


def route(expert_index_NK: Tensor, experts: int) -> Routing:
    """Sort the choices by expert. Nothing here waits for a GPU."""
    expert_R, choice_R = expert_index_NK.flatten().long().sort(stable=True)
    every = torch.arange(max(len(choice_R), experts), device=choice_R.device)
    row_NK = torch.empty_like(choice_R).scatter_(0, choice_R, every[: len(choice_R)])
    return Routing(
        token_R=choice_R.div(expert_index_NK.shape[1], rounding_mode="floor"),
        choice_R=choice_R,
        expert_R=expert_R,
        row_NK=row_NK.view_as(expert_index_NK),
        ends_E=torch.searchsorted(expert_R, every[:experts], right=True).to(torch.int32),
    )


def by_expert(ends_E: Tensor) -> list[tuple[int, slice]]:
    """(expert, its rows) of those that have any."""
    ends = [0, *ends_E.tolist()]
    return [(e, slice(start, end)) for e, (start, end) in enumerate(pairwise(ends)) if end > start]


def combine(rows_RO: Tensor, row_NK: Tensor, gates_NK: Tensor | None = None) -> Tensor:
    """(N, O): the sum over each token's rows times its gates, always in the order of its choices; without gradients.

    torch's bag of embeddings is that sum in one pass over memory, where `index_add` and a gather take two or three.
    """
    return F.embedding_bag(row_NK, rows_RO, mode="sum", per_sample_weights=gates_NK)


class Dispatch(torch.autograd.Function):
    """(N, D) -> (R, D): every token once for each expert it goes through. Its gradient is `Combine`."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor:
        ctx.save_for_backward(token_R, row_NK)
        return x_ND.index_select(0, token_R)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return Combine.apply(grads[0], *ctx.saved_tensors), None, None


class Combine(torch.autograd.Function):
    """(R, O) -> (N, O): `combine`, whose gradient is `Dispatch`."""

    @staticmethod
    def forward(ctx: Any, rows_RO: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor:
        ctx.save_for_backward(token_R, row_NK)
        return combine(rows_RO.contiguous(), row_NK)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return Dispatch.apply(grads[0], *ctx.saved_tensors), None, None
