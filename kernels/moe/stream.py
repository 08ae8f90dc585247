"""A few experts after another, from their tokens to their results while these lie in the cache; without gradients.

Shapes: N tokens, K experts a token, R = N K rows, D features in, H hidden units of an expert, O features out.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from .experts import Experts
from .products import multiply_each
from .routing import by_expert, combine, route

CACHE = 4 << 20
"""Bytes of rows and hidden units that are worked on at a time, or what one expert has of them where that is more."""


def stream(x_ND: Tensor, experts: Experts, expert_index_NK: Tensor, gates_NK: Tensor) -> Tensor:
    """(N, O)."""
    routing = route(expert_index_NK, experts.count)
    out_RO = x_ND.new_empty(len(routing.token_R), experts.down_EOH.shape[1])
    for first, last, parts in groups(routing.ends_E, most_rows(x_ND, experts)):
        rows_RD = x_ND.index_select(0, routing.token_R[first:last])
        gate_RH = None
        if experts.gate_EHD is not None:
            gate_RH = multiply_each(rows_RD, experts.gate_EHD, parts, experts.gate_bias_EH)
        hidden_RH = experts.activate(multiply_each(rows_RD, experts.up_EHD, parts, experts.up_bias_EH), gate_RH)
        multiply_each(hidden_RH, experts.down_EOH, parts, out_RO=out_RO[first:last])
    return combine(out_RO, routing.row_NK, gates_NK.to(x_ND.dtype).contiguous())


def most_rows(x_ND: Tensor, experts: Experts) -> int:
    """How many rows with all that is made of them fit in the cache."""
    hidden = experts.up_EHD.shape[1] * (1 if experts.gate_EHD is None else 2)
    return CACHE // ((x_ND.shape[1] + hidden + experts.down_EOH.shape[1]) * x_ND.element_size())


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
