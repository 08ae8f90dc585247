"""Gated linear attention as a Triton kernel, for GPUs; under Triton's interpreter on a CPU, for tests. Forward only.

One program owns one head and a tile of its values, and goes through the tokens in chunks of 16 with the state in
registers: what comes from before and what is written are products; pairs within a chunk are weighed one key after the
other, newest first, so that log-decays between two tokens are added up and never subtracted. Keys are taken in pieces,
so that what is worked out of one fits beside the state.

Shapes: B batch, H heads, T tokens, K width of keys, V width of values.
"""

# Type checkers see a kernel as the Python function it is written as, not as what `triton.jit` makes of it.
# pyright: reportCallIssue=false, reportAssignmentType=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_limits import capability, precision, refuses_device, refuses_type, unspilled, within_the_card

TOKENS = 16
"""Of a chunk."""
PIECE = 64
"""Of a key's width, worked on at once."""
WIDEST = 128
"""Keys that a state in registers may have: of 256, a few hundred bytes would not fit."""
WARPS = {16: 2}
"""By width of the keys; 4 for wider ones."""


@triton.jit
def _gated_kernel(
    q, k, v, gate, state, out, last,
    scale, tokens, width, value_width, g_t, g_g,
    TOKENS: tl.constexpr, K: tl.constexpr, PIECE: tl.constexpr, V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """q, k, v, out, state and last are contiguous, one head behind the other; gate is (heads, T, K), any strides."""
    head = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, PIECE)
    column = tl.program_id(1) * V + tl.arange(0, V)
    has_column = column < value_width
    row = tl.arange(0, TOKENS)
    at_state = head * width * value_width + channel[:, None] * value_width + column[None, :]
    S = ()
    for p in tl.static_range(K // PIECE):  # pyright: ignore
        inside_state = (channel < width - p * PIECE)[:, None] & has_column[None, :]
        S += (tl.load(state + at_state + p * PIECE * value_width, mask=inside_state, other=0.0),)
    for start in range(0, tokens, TOKENS):
        token = start + row
        at_value = (head * tokens + token)[:, None] * value_width + column[None, :]
        inside_value = (token < tokens)[:, None] & has_column[None, :]
        value = tl.load(v + at_value, mask=inside_value, other=0.0).to(tl.float32)
        acc = tl.zeros([TOKENS, V], tl.float32)
        pairs = tl.zeros([TOKENS, TOKENS], tl.float32)
        new_S = ()
        for p in tl.static_range(K // PIECE):
            at_key = (head * tokens + token)[:, None] * width + p * PIECE + channel[None, :]
            inside_key = (token < tokens)[:, None] & (channel < width - p * PIECE)[None, :]
            query = tl.load(q + at_key, mask=inside_key, other=0.0).to(tl.float32) * scale
            key = tl.load(k + at_key, mask=inside_key, other=0.0).to(tl.float32)
            at_gate = gate + head * tokens * g_t + token[:, None] * g_t + (p * PIECE + channel)[None, :] * g_g
            decay = tl.load(at_gate, mask=inside_key, other=0.0).to(tl.float32)
            is_followed = inside_key & ((token + 1 < tokens) & (row + 1 < TOKENS))[:, None]
            later = tl.load(at_gate + g_t, mask=is_followed, other=0.0).to(tl.float32)
            reads = query * tl.exp(tl.cumsum(decay, 0))
            writes = key * tl.exp(tl.cumsum(later, 0, reverse=True))
            acc = tl.dot(reads, S[p], acc, input_precision=PRECISION)
            since = tl.zeros([TOKENS, PIECE], tl.float32)
            for back in range(TOKENS):
                s = TOKENS - 1 - back
                # `since` holds, for every token behind s + 1, the decay from there on; now from s on.
                next_decay = tl.sum(tl.where((row == s + 1)[:, None], decay, 0.0), 0)
                since = tl.where((row > s)[:, None], since + next_decay[None, :], 0.0)
                one_key = tl.sum(tl.where((row == s)[:, None], key, 0.0), 0)
                weight = tl.sum(query * one_key[None, :] * tl.exp(since), 1)
                pairs += tl.where((row[:, None] >= s) & (row == s)[None, :], weight[:, None], 0.0)
            kept = tl.exp(tl.sum(decay, 0))[:, None] * S[p]
            new_S += (tl.dot(tl.trans(writes), value, kept, input_precision=PRECISION),)
        S = new_S
        acc = tl.dot(pairs, value, acc, input_precision=PRECISION)
        tl.store(out + at_value, acc.to(out.dtype.element_ty), mask=inside_value)
    for p in tl.static_range(K // PIECE):  # pyright: ignore
        inside_state = (channel < width - p * PIECE)[:, None] & has_column[None, :]
        tl.store(last + at_state + p * PIECE * value_width, S[p], mask=inside_state)


def values_of_tile(width: int, value_width: int) -> int:
    """Values that a program takes, so that its state of `width` x so many stays in registers."""
    return max(16, min(32 if width <= PIECE else 16, triton.next_power_of_2(value_width)))  # pyright: ignore


INTERPRETED = not isinstance(_gated_kernel, triton.JITFunction)


def options(width: int, capability: int) -> dict[str, int]:
    """How the kernel is compiled for keys of a padded `width`, on a card of a compute capability, 0 for AMD."""
    return {"num_warps": WARPS.get(width, 4), **unspilled(capability)}


def gated(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, *, scale: float, state: Tensor) -> tuple[Tensor, Tensor]:
    """See `gated_linear_attention`; gate (B, H, T, 1 or K), state (B, H, K, V) of float32."""
    batch, heads, tokens, width = q.shape
    value_width = v.shape[-1]
    q, k, v, state = q.contiguous(), k.contiguous(), v.contiguous(), state.contiguous()
    gate = gate.contiguous()
    out, last = v.new_empty(v.shape), torch.empty_like(state)
    padded = max(16, triton.next_power_of_2(width))
    tile = values_of_tile(padded, value_width)  # pyright: ignore
    with torch.cuda.device_of(q), within_the_card():
        _gated_kernel[(batch * heads, triton.cdiv(value_width, tile))](
            q, k, v, gate, state, out, last,
            scale, tokens, width, value_width, gate.shape[-1], int(gate.shape[-1] > 1),
            TOKENS=TOKENS, K=padded, PIECE=min(PIECE, padded), V=tile,  # pyright: ignore
            # The state is float32 whatever the type of the inputs, so its products are too.
            PRECISION=precision(state, interpreted=INTERPRETED),  # pyright: ignore
            **options(padded, capability(q.device, interpreted=INTERPRETED)),  # pyright: ignore
        )  # fmt: skip
    return out, last


def gated_refuses(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, state: Tensor | None) -> str | None:
    """Why `gated` cannot take these inputs, or None."""
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, gate, state)):
        return "it has no gradients"
    if q.shape[-1] > WIDEST:
        return f"keys of width {q.shape[-1]}: at most {WIDEST}"
    if min(q.numel(), v.numel()) == 0:
        return "there is nothing to do"
    return refuses_type(q) or refuses_device(q, interpreted=INTERPRETED)
