"""The delta rule: a state that takes back what a key held before it writes there, with or without forgetting.

Source: Yang et al., 2024, arXiv:2406.06484 (in chunks); Yang et al., 2024, arXiv:2412.06464 (gated).
Shapes: B batch, H heads, T tokens, K width of keys, V width of values, N chunks, C tokens a chunk.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ..dispatch import OPERATIONS, Backend, Operation
from .decay import after, between, through
from .inputs import check_inputs, check_like, gate_of, state_or_zeros
from .reference import reference_delta

CHUNK = 64
FEW = 4
"""Tokens up to which one step each costs less than arranging them in chunks."""


@overload
def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = ...,
    *,
    scale: float | None = ...,
    initial_state: Tensor | None = ...,
    return_state: Literal[False] = ...,
    backend: str = ...,
) -> Tensor: ...
@overload
def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = ...,
    *,
    scale: float | None = ...,
    initial_state: Tensor | None = ...,
    return_state: Literal[True],
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...
def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    return_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """S = exp(log_decay_t) S_{t-1}, S_t = S + beta_t k_t (v_t - k_t S)^T and o_t = scale q_t S_t.

    Keys should have length 1 (the caller normalises them): then beta 1 replaces what a key held, and orthogonal keys
    are recalled exactly.

    Shapes: q and k (B, H, T, K), v (B, H, T, V), beta (B, H, T) -> (B, H, T, V) of q's type; the state is
    (B, H, K, V), float32, or float64 for float64.

    Args:
        beta: how much of a key's place is written anew, 0 to 1.
        log_decay: at most 0: (B, H, T) or (H); nothing is forgotten where None.
        scale: of the queries; 1 / sqrt(K) where None.
        initial_state: what an earlier call returned; zeros where None.
        return_state: give the state after the last token too.
        backend: "auto", or a name in `DELTA_RULE.names()`.

    Raises: ConfigError, UnknownNameError: see `Operation.choose`.
    """
    check_inputs(q, k, v, initial_state)
    check_like(q, beta, "beta")
    if beta.shape != q.shape[:3]:
        raise ConfigError(f"beta must have shape {tuple(q.shape[:3])}, not {tuple(beta.shape)}")
    gate = gate_of(q, q.new_zeros(q.shape[1]) if log_decay is None else log_decay, vector=False)
    chosen = DELTA_RULE.choose(q, k, v, backend=backend)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    state = state_or_zeros(q, v, initial_state)
    out, state = chosen.run(q, k, v, beta[..., None], gate, scale=scale, state=state)
    return (out, state) if return_state else out


def _recurrent(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, gate: Tensor, *, scale: float, state: Tensor
) -> tuple[Tensor, Tensor]:
    kind, outs = q.dtype, []
    q, k, v, beta, gate = (x.to(state.dtype) for x in (q, k, v, beta, gate))
    for t in range(q.shape[2]):
        state = gate[:, :, t, :, None].exp() * state
        key = k[:, :, t, None]
        state = state + key.mT * (beta[:, :, t, None] * (v[:, :, t, None] - key @ state))
        outs.append(scale * q[:, :, t, None] @ state)
    return (torch.cat(outs, 2) if outs else v).to(kind), state


def _chunked(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, gate: Tensor, *, scale: float, state: Tensor
) -> tuple[Tensor, Tensor]:
    """In chunks: what its tokens really write solves one triangular system, then all is matrix products."""
    tokens, kind, size = q.shape[2], q.dtype, min(CHUNK, q.shape[2])
    if tokens == 0:
        return v, state
    # Padding has key and beta 0, which write nothing, and log-decay 0, which forgets nothing.
    q, k, v, beta, gate = (
        F.pad(x.to(state.dtype), (0, 0, 0, -tokens % size)).unflatten(2, (-1, size)) for x in (q, k, v, beta, gate)
    )
    q = q * scale
    decay, reading, writing = between(gate)[..., 0].exp(), through(gate).exp(), after(gate).exp()
    earlier = (beta * (k @ k.mT) * decay).tril(-1)
    system = earlier + torch.eye(size, dtype=k.dtype, device=k.device)
    solved = torch.linalg.solve_triangular(
        system, torch.cat([beta * v, beta * k * reading], -1), upper=False, unitriangular=True
    )
    value, key = solved.split([v.shape[-1], k.shape[-1]], -1)
    weights, outs = (q @ k.mT * decay).tril(), []
    for i in range(q.shape[2]):
        written = value[:, :, i] - key[:, :, i] @ state
        outs.append((q[:, :, i] * reading[:, :, i]) @ state + weights[:, :, i] @ written)
        state = reading[:, :, i, -1:] * state + (k[:, :, i] * writing[:, :, i]).mT @ written
    return torch.cat(outs, 2)[:, :, :tokens].to(kind), state


def _reference(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, gate: Tensor, *, scale: float, state: Tensor
) -> tuple[Tensor, Tensor]:
    out, last = reference_delta(q, k, v, beta[..., 0], gate, scale=scale, state=state)
    return out.to(q.dtype), last.to(state.dtype)


def _many(q: Tensor, *_others: object) -> str | None:
    return f"{q.shape[2]} tokens are faster in chunks" if q.shape[2] > FEW else None


DELTA_RULE = OPERATIONS.add(
    "delta rule",
    Operation(
        name="delta rule",
        backends=[
            Backend(name="recurrent", run=_recurrent, hesitates=_many),
            Backend(name="chunked", run=_chunked),
            Backend(name="reference", run=_reference, hesitates=lambda *_: "it is slow, in float64, for tests"),
        ],
    ),
)
