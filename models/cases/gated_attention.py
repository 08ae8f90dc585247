"""What is remembered of gated attention."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.attention import ClippedSoftmax, attend
from ...kernels.attention.windows import relative_bias, window_attention
from ..numbers import numbers, whole_numbers
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


@case("gated_attention", "few queries to many keys: grouped keys, biases, caps, gates, windows, normalisers")
@torch.no_grad()
def kernels() -> list[object]:
    q, k, v = numbers((2, 4, 5, 6)), numbers((2, 2, 9, 6), 1), numbers((2, 2, 9, 6), 2)
    bias, gate, seen = numbers((4, 5, 9), 3), numbers((2, 4, 5), 4), numbers((2, 1, 5, 9), 5) > -0.6
    made: list[object] = [
        attend(q, k, v), attend(q, k, v, scale=0.7, bias=bias), attend(q, k, v, causal=True, window=3),
        attend(q, k, v, window=4, soft_cap=0.8, bias=bias), attend(q, k, v, allowed=seen, bias=bias[:1]),
        attend(q, k, v, allowed=seen, causal=True, gate=gate), attend(q, k, v, gate=numbers((2, 4, 5, 6), 6)),
        attend(q, k, v, bias=bias[0], normaliser=ClippedSoftmax(gamma=-0.05), causal=True),
        attend(q, k, v, normaliser=ClippedSoftmax(gamma=-0.02, zeta=1.1), allowed=seen),
        attend(q[:, :2], k, v, soft_cap=2.0),
    ]  # fmt: skip
    x, table = numbers((2, 8, 12, 2, 6)), numbers((2, 7, 11), 7)
    for window, shift in (((4, 6), (0, 0)), ((4, 6), (2, 3)), ((4, 6), (1, 0)), ((3, 5), (0, 2))):
        for masked in (True, False):
            if masked or not (8 % window[0] or 12 % window[1]):
                bias = relative_bias(table, window)
                made.append(window_attention(x, x + 1, x - 1, window=window, shift=shift, bias=bias, masked=masked))
    return made
