"""The truth every backend is tested against: the recurrences as they are written, in float64, token by token.

Shapes: B batch, H heads, T tokens, K width of keys, V width of values, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reference_gated(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, *, scale: float, state: Tensor
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(gate_t)) S_{t-1} + k_t v_t^T, o_t = scale q_t S_t; (B, H, T, V) and the last S (B, H, K, V)."""
    q, k, v, gate, S = q.double() * scale, k.double(), v.double(), gate.double(), state.double()
    outs = []
    for t in range(q.shape[2]):
        S = gate[:, :, t, :, None].exp() * S + k[:, :, t, :, None] * v[:, :, t, None]
        outs.append((q[:, :, t, None] @ S)[:, :, 0])
    return _stacked(outs, v), S


def reference_delta(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, gate: Tensor, *, scale: float, state: Tensor
) -> tuple[Tensor, Tensor]:
    """S = exp(gate_t) S_{t-1}; S_t = S + beta_t k_t (v_t - k_t S)^T; o_t = scale q_t S_t."""
    q, k, v, beta, gate, S = q.double() * scale, k.double(), v.double(), beta.double(), gate.double(), state.double()
    outs = []
    for t in range(q.shape[2]):
        S = gate[:, :, t, :, None].exp() * S
        held = (k[:, :, t, None] @ S)[:, :, 0]
        S = S + k[:, :, t, :, None] * (beta[:, :, t, None] * (v[:, :, t] - held))[:, :, None]
        outs.append((q[:, :, t, None] @ S)[:, :, 0])
    return _stacked(outs, v), S


def reference_scan(x: Tensor, log_decay: Tensor, *, state: Tensor) -> Tensor:
    """h_t = exp(log_decay_t) h_{t-1} + x_t; every h (B, T, D)."""
    h, outs = state.double(), []
    for t in range(x.shape[1]):
        h = log_decay[:, t].double().exp() * h + x[:, t].double()
        outs.append(h)
    return torch.stack(outs, 1) if outs else x.double()


def _stacked(outs: list[Tensor], v: Tensor) -> Tensor:
    return torch.stack(outs, 2) if outs else v.double()
