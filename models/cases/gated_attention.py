"""What is remembered of gated attention."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import whole_numbers
from ..remember import case, filled_model, given

case("gated_attention", "the toy: a gate a channel, shared keys, norms of queries and keys")(
    lambda: given("gated_attention")
)


@case("gated_attention", "a gate a head, none, heads of their own width, a window, another base")
@torch.no_grad()
def forms() -> list[Tensor]:
    tokens = whole_numbers((2, 11), 32)
    changes = (
        {"gate": "head"}, {"gate": "none", "query_key_norm": False}, {"head_width": 6, "key_heads": 1}, {"window": 4},
        {"rotary_base": 100.0},
    )  # fmt: skip
    return [filled_model("gated_attention", attention=one)(tokens) for one in changes]


@case("gated_attention", "decoding in a window, and what is kept")
@torch.no_grad()
def decoding() -> list[object]:
    model, state, made = filled_model("gated_attention", attention={"window": 4}), None, []
    for part in whole_numbers((2, 10), 32).split(3, 1):
        logits, state = model.step(part, state)
        made += [logits, state]
    return made
