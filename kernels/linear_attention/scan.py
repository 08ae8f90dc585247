"""A recurrence of vectors: every channel remembers for itself (HGRN, RG-LRU).

Shapes: B batch, T tokens, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError
from ..dispatch import OPERATIONS, Backend, Operation
from .inputs import wide
from .reference import reference_scan


def scan(x: Tensor, log_decay: Tensor, *, initial_state: Tensor | None = None, backend: str = "auto") -> Tensor:
    """h_t = exp(log_decay_t) h_{t-1} + x_t, every h; in log2(T) passes over all tokens, with gradients.

    Shapes: x and log_decay (B, T, D), initial_state (B, D) -> (B, T, D) of x's type. The state to go on from is the
    last h.

    Args:
        log_decay: at most 0; -inf forgets everything before.
        initial_state: h before the first token; zeros where None.
        backend: "auto", or a name in `SCAN.names()`.

    Raises: ConfigError, UnknownNameError: see `Operation.choose`.

    >>> scan(torch.ones(1, 3, 1), torch.tensor(0.5).log().expand(1, 3, 1)).flatten()
    tensor([1.0000, 1.5000, 1.7500])
    """
    if x.ndim != 3 or log_decay.shape != x.shape:
        raise ConfigError(
            f"a scan takes x and log_decay of one shape (batch, tokens, channels), not {tuple(x.shape)} and "
            f"{tuple(log_decay.shape)}"
        )
    parts = (("log_decay", log_decay),) + ((("initial_state", initial_state),) if initial_state is not None else ())
    for name, part in parts:
        if not x.is_floating_point() or not part.is_floating_point() or part.device != x.device:
            raise ConfigError(
                f"x and {name} must be floating-point on one device, not {x.dtype} on {x.device} and {part.dtype} on "
                f"{part.device}"
            )
    if initial_state is not None and tuple(initial_state.shape) != (x.shape[0], x.shape[2]):
        raise ConfigError(
            f"the initial state must have shape {(x.shape[0], x.shape[2])}, not {tuple(initial_state.shape)}"
        )
    state = x.new_zeros(x.shape[0], x.shape[2]) if initial_state is None else initial_state
    return SCAN.choose(x, log_decay, backend=backend).run(x, log_decay, state=state)


def _doubling(x: Tensor, log_decay: Tensor, *, state: Tensor) -> Tensor:
    """Every token adds what the one 1, then 2, 4, 8 ... before it holds, decayed: sums of log-decays only grow."""
    h = torch.cat([state[:, None].to(wide(x.dtype)), x.to(wide(x.dtype))], 1)
    decay = torch.cat([torch.zeros_like(h[:, :1]), log_decay.to(h.dtype)], 1).exp()
    far = 1
    while far < h.shape[1]:
        h = torch.cat([h[:, :far], h[:, far:] + decay[:, far:] * h[:, :-far]], 1)
        decay = torch.cat([decay[:, :far], decay[:, far:] * decay[:, :-far]], 1)
        far *= 2
    return h[:, 1:].to(x.dtype)


def _reference(x: Tensor, log_decay: Tensor, *, state: Tensor) -> Tensor:
    return reference_scan(x, log_decay, state=state).to(x.dtype)


SCAN = OPERATIONS.add(
    "scan",
    Operation(
        name="scan",
        backends=[
            Backend(name="doubling", run=_doubling),
            Backend(name="reference", run=_reference, hesitates=lambda *_: "it is slow, in float64, for tests"),
        ],
    ),
)
