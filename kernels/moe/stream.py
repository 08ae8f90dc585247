"""Experts without gradients: a few after another while their rows lie in the cache, or side by side on several threads.

Shapes: N tokens, K experts a token, R = N K rows, D features in, H hidden units of an expert, O features out.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .experts import Experts
from .products import LEAST_ROWS, multiply_batch, multiply_each
from .routing import Routing, by_expert, combine, route

CACHE = 4 << 20
"""Bytes of rows and hidden units that are worked on at a time, or what one expert has of them where that is more."""
MOST_PADDING = 2
"""Times as many rows as there are that are worked on side by side."""


def stream(x_ND: Tensor, experts: Experts, expert_index_NK: Tensor, gates_NK: Tensor) -> Tensor:
    """(N, O)."""
    routing = route(expert_index_NK, experts.count)
    gates_NK = gates_NK.to(x_ND.dtype).contiguous()
    if x_ND.device.type == "cpu" and torch.get_num_threads() > 1:
        longest = max(LEAST_ROWS, *(span.stop - span.start for _, span in by_expert(routing.ends_E)))
        if longest * experts.count <= MOST_PADDING * len(routing.token_R):
            return side_by_side(x_ND, experts, routing, gates_NK, longest)
    return one_by_one(x_ND, experts, routing, gates_NK)


def one_by_one(x_ND: Tensor, experts: Experts, routing: Routing, gates_NK: Tensor) -> Tensor:
    """Every product on all threads: best with one thread, or with experts of very different loads."""
    out_RO = x_ND.new_empty(len(routing.token_R), experts.down_EHO.shape[2])
    for first, last, parts in groups(routing.ends_E, most_rows(x_ND, experts)):
        rows_RD = x_ND.index_select(0, routing.token_R[first:last])
        gate_RH = None
        if experts.gate_EDH is not None:
            gate_RH = multiply_each(rows_RD, experts.gate_EDH, parts, experts.gate_bias_EH)
        hidden_RH = experts.activate(multiply_each(rows_RD, experts.up_EDH, parts, experts.up_bias_EH), gate_RH)
        multiply_each(hidden_RH, experts.down_EHO, parts, out_RO=out_RO[first:last])
    return combine(out_RO, routing.row_NK, gates_NK)


def side_by_side(x_ND: Tensor, experts: Experts, routing: Routing, gates_NK: Tensor, longest: int) -> Tensor:
    """Every expert's rows filled up to `longest`, one batched product over the experts: a thread has whole products.

    Split among threads, products of some dozen rows take longer than on one.
    """
    before_E = F.pad(routing.ends_E, (1, -1))
    place_R = torch.arange(len(routing.token_R)) + (longest * torch.arange(experts.count) - before_E)[routing.expert_R]
    token = place_R.new_zeros(experts.count * longest).scatter_(0, place_R, routing.token_R)
    rows_ERD = x_ND.index_select(0, token).view(experts.count, longest, -1)
    gate_ERH = None
    if experts.gate_EDH is not None:
        gate_ERH = multiply_batch(rows_ERD, experts.gate_EDH, experts.gate_bias_EH)
    hidden_ERH = experts.activate(multiply_batch(rows_ERD, experts.up_EDH, experts.up_bias_EH), gate_ERH)
    out_RO = multiply_batch(hidden_ERH, experts.down_EHO).flatten(0, 1)
    return combine(out_RO, place_R[routing.row_NK], gates_NK)


def most_rows(x_ND: Tensor, experts: Experts) -> int:
    """How many rows with all that is made of them fit in the cache."""
    hidden = experts.up_EDH.shape[2] * (1 if experts.gate_EDH is None else 2)
    return CACHE // ((x_ND.shape[1] + hidden + experts.down_EHO.shape[2]) * x_ND.element_size())


def groups(ends_E: Tensor, most: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """(first row, row after the last, (expert, number of its rows)) of as many experts as have `most` rows together."""
    parts: list[tuple[int, int]] = []
    first = last = 0
    for expert, span in by_expert(ends_E):
        if parts and span.stop - first > most:
            yield first, last, parts
            parts, first = [], span.start
        parts.append((expert, span.stop - span.start))
        last = span.stop
    if parts:
        yield first, last, parts
