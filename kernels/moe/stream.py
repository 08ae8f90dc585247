"""One expert after another, from its tokens to its results while they lie in the cache; without gradients.

Shapes: N tokens, K experts a token, R = N K rows, D features in, H hidden units of an expert, O features out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .experts import Experts
from .products import LEAST_ROWS
from .routing import by_expert, combine, route


def stream(x_ND: Tensor, experts: Experts, expert_index_NK: Tensor, gates_NK: Tensor) -> Tensor:
    """(N, O). Few rows are filled up, so that a token's result does not depend on its batch mates."""
    routing = route(expert_index_NK, experts.count)
    out_RO = x_ND.new_empty(len(routing.token_R), experts.down_EOH.shape[1])
    networks = experts.each()
    for expert, rows in by_expert(routing.ends_E):
        count, one = rows.stop - rows.start, networks[expert]
        some = x_ND.index_select(0, routing.token_R[rows])
        if count < LEAST_ROWS:
            some = F.pad(some, (0, 0, 0, LEAST_ROWS - count))
        hidden = experts.hidden(some, one)
        if count < LEAST_ROWS:
            out_RO[rows] = torch.mm(hidden, one.down_OH.t())[:count]
        else:
            torch.mm(hidden, one.down_OH.t(), out=out_RO[rows])
    return combine(out_RO, routing.row_NK, gates_NK.to(x_ND.dtype).contiguous())
