"""Gated linear attention as matrix products, with gradients: linear in the length.

Tokens are taken in chunks. What a chunk gets from those before it comes from the state at its start. Within a chunk,
tokens are taken in halves of halves: what the right half gets from the left one is one product of queries, decayed from
the middle on, with keys, decayed up to the middle. So both exponents are at most 0 whatever the gates; the last few
tokens are weighed pair by pair.

Source: Yang et al., 2023, arXiv:2312.06635, section 4.
Differs from the paper: halves of halves instead of one level of sub-chunks, and no sum of gates is a difference of two.
Shapes: B batch, H heads, N chunks, C tokens a chunk, L tokens a leaf, K, V widths, G 1 or K.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .decay import after, between, through

CHUNK = 64
LEAF = 8
"""Tokens that are weighed pair by pair where every channel has its own gate."""
SEGMENT = 1024
"""Tokens worked on at once, so that memory does not grow with the length beyond inputs and outputs."""


def chunked(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, *, scale: float, state: Tensor) -> tuple[Tensor, Tensor]:
    """See `gated_linear_attention`; gate (B, H, T, G)."""
    outs = []
    for start in range(0, max(1, q.shape[2]), SEGMENT):
        now = slice(start, start + SEGMENT)
        out, state = _segment(q[:, :, now], k[:, :, now], v[:, :, now], gate[:, :, now], scale, state)
        outs.append(out)
    return (torch.cat(outs, 2) if len(outs) > 1 else outs[0]), state


def _segment(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, scale: float, state: Tensor) -> tuple[Tensor, Tensor]:
    tokens, kind = q.shape[2], q.dtype
    if tokens == 0:
        return v, state
    size = LEAF
    while size < min(tokens, CHUNK):
        size *= 2
    # Padding has key 0, which writes nothing, and log-decay 0, which forgets nothing.
    q, k, v, gate = (
        F.pad(x.to(state.dtype), (0, 0, 0, -tokens % size)).unflatten(2, (-1, size)) for x in (q, k, v, gate)
    )
    q = q * scale
    reading = through(gate)
    states, state = carried((k * after(gate).exp()).mT @ v, reading[..., -1, :].exp(), state)
    out = (q * reading.exp()) @ states
    out = out + (_by_head(q, k, v, gate) if gate.shape[-1] == 1 else _by_channel(q, k, v, gate))
    return out.flatten(2, 3)[:, :, :tokens].to(kind), state


def carried(written: Tensor, decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """(the state before every chunk (B, H, N, K, V), the state after the last).

    Shapes: written (B, H, N, K, V): what each adds; decay (B, H, N, G): what it leaves of the one before.
    """
    before = []
    for i in range(written.shape[2]):
        before.append(state)
        state = torch.addcmul(written[:, :, i], decay[:, :, i, :, None], state)
    return torch.stack(before, 2), state


def _by_head(q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
    """Within chunks, where all channels have one gate."""
    return (q @ k.mT * between(gate)[..., 0].exp()).tril() @ v


def _by_channel(q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
    """Within chunks, where every channel has its own gate."""
    size = q.shape[-2]
    q_leaf, k_leaf, v_leaf, gate_leaf = (x.unflatten(-2, (-1, LEAF)) for x in (q, k, v, gate))
    pairs = between(gate_leaf).exp() * k_leaf[..., None, :, :]
    weights = (pairs @ q_leaf[..., None])[..., 0].tril()
    out = (weights @ v_leaf).flatten(-3, -2)
    half = LEAF
    while half < size:
        q_half, k_half, v_half, gate_half = (x.unflatten(-2, (-1, 2, half)) for x in (q, k, v, gate))
        reads = q_half[..., 1, :, :] * through(gate_half[..., 1, :, :]).exp()
        keys = k_half[..., 0, :, :] * after(gate_half[..., 0, :, :]).exp()
        right = (reads @ keys.mT) @ v_half[..., 0, :, :]
        out = out + torch.stack([torch.zeros_like(right), right], -3).flatten(-4, -2)
        half *= 2
    return out
