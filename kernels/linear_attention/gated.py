"""Gated linear attention: softmax attention's place taken by a state that forgets.

Source: Yang et al., 2023, arXiv:2312.06635. With a constant gate it is retention (Sun et al., 2023, arXiv:2307.08621).
Shapes: B batch, H heads, T tokens, K width of keys, V width of values.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from ..dispatch import OPERATIONS, Backend, Operation, deferred
from ..triton_limits import triton_backend
from .chunked import chunked
from .inputs import check_inputs, gate_of, state_or_zeros
from .reference import reference_gated

TRITON = f"{__name__.rpartition('.')[0]}.triton"
FEW = 4
"""Tokens up to which one step each costs less than arranging them in chunks."""


@overload
def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    scale: float | None = ...,
    initial_state: Tensor | None = ...,
    return_state: Literal[False] = ...,
    backend: str = ...,
) -> Tensor: ...
@overload
def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    scale: float | None = ...,
    initial_state: Tensor | None = ...,
    return_state: Literal[True],
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...
def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    return_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T and o_t = scale q_t S_t, in chunks or token by token.

    A gate may be as harsh as it likes, down to -inf, which forgets everything before: results stay finite and close to
    float64, since no exponential of more than 0 is ever taken.

    Shapes: q and k (B, H, T, K), v (B, H, T, V) -> (B, H, T, V) of q's type; the state is (B, H, K, V), float32, or
    float64 for float64.

    Args:
        log_decay: at most 0. (B, H, T, K) a channel of the key; (B, H, T) a head; (H) the same at every token.
        scale: of the queries; 1 / sqrt(K) where None.
        initial_state: what an earlier call returned; zeros where None.
        return_state: give the state after the last token too.
        backend: "auto", or a name in `GATED.names()`.

    Raises: ConfigError, UnknownNameError, MissingDependencyError: see `Operation.choose`.

    >>> one = torch.ones(1, 1, 3, 1)
    >>> gated_linear_attention(one, one, one, torch.tensor([0.5]).log()).flatten()
    tensor([1.0000, 1.5000, 1.7500])
    """
    check_inputs(q, k, v, initial_state)
    gate = gate_of(q, log_decay, vector=True)
    given = state_or_zeros(q, v, initial_state)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, state = GATED.run(
        lambda run: run(q, k, v, gate, scale=scale, state=given), *(q, k, v, gate, initial_state), backend=backend
    )
    return (out, state) if return_state else out


def recurrent(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, *, scale: float, state: Tensor) -> tuple[Tensor, Tensor]:
    """Token by token, as in decoding."""
    kind = q.dtype
    q, k, v, decay = q.to(state.dtype) * scale, k.to(state.dtype), v.to(state.dtype), gate.to(state.dtype).exp()
    outs = []
    for t in range(q.shape[2]):
        state = decay[:, :, t, :, None] * state + k[:, :, t, :, None] * v[:, :, t, None]
        outs.append(q[:, :, t, None] @ state)
    return (torch.cat(outs, 2) if outs else v).to(kind), state


def _reference(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, *, scale: float, state: Tensor) -> tuple[Tensor, Tensor]:
    out, last = reference_gated(q, k, v, gate, scale=scale, state=state)
    return out.to(q.dtype), last.to(state.dtype)


def _many(q: Tensor, *_others: object) -> str | None:
    return f"{q.shape[2]} tokens are faster in chunks" if q.shape[2] > FEW else None


GATED = OPERATIONS.add(
    "gated linear attention",
    Operation(
        name="gated linear attention",
        backends=[
            triton_backend(TRITON, refuses="gated_refuses", run=deferred(TRITON, "gated")),
            Backend(name="recurrent", run=recurrent, hesitates=_many),
            Backend(name="chunked", run=chunked),
            Backend(name="reference", run=_reference, hesitates=lambda *_: "it is slow, in float64, for tests"),
        ],
    ),
)
