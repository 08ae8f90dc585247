"""What every linear attention takes, checked once at the door."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError


def check_inputs(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None) -> None:
    """Raises: ConfigError where q and k (B, H, T, K), v (B, H, T, V) and state (B, H, K, V) do not fit together."""
    if q.ndim != 4 or q.shape != k.shape or v.ndim != 4 or v.shape[:3] != q.shape[:3]:
        raise ConfigError(
            "linear attention takes q and k of one shape (batch, heads, tokens, width) and v of the same batch, heads "
            f"and tokens, not {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    for name, part in (("k", k), ("v", v)):
        check_like(q, part, name)
    if state is None:
        return
    expected = (*q.shape[:2], q.shape[3], v.shape[3])
    if tuple(state.shape) != expected:
        raise ConfigError(f"the initial state must have shape {expected}, not {tuple(state.shape)}")
    if not state.is_floating_point() or state.device != q.device:
        raise ConfigError(
            f"the initial state must be floating-point on {q.device}, not {state.dtype} on {state.device}"
        )


def check_like(q: Tensor, part: Tensor, name: str) -> None:
    """Raises: ConfigError where `part` is not of q's floating-point type, on its device."""
    if not q.is_floating_point() or part.dtype != q.dtype:
        raise ConfigError(f"q and {name} must be of one floating-point type, not {q.dtype} and {part.dtype}")
    if part.device != q.device:
        raise ConfigError(f"q is on {q.device} and {name} on {part.device}; move them to one device")


def gate_of(q: Tensor, log_decay: Tensor, *, vector: bool) -> Tensor:
    """`log_decay` as (B, H, T, K), or as (B, H, T, 1) where all of a head's channels have one.

    Raises: ConfigError: it is none of these shapes, not floating-point, or elsewhere.
    """
    batch, heads, tokens, width = q.shape
    if not log_decay.is_floating_point() or log_decay.device != q.device:
        raise ConfigError(
            f"log_decay must be floating-point on {q.device}, not {log_decay.dtype} on {log_decay.device}"
        )
    shape = tuple(log_decay.shape)
    if vector and shape == (batch, heads, tokens, width):
        return log_decay
    if shape == (batch, heads, tokens):
        return log_decay[..., None]
    if shape == (heads,):
        return log_decay[None, :, None, None].expand(batch, heads, tokens, 1)
    channels = f"{(batch, heads, tokens, width)}, " if vector else ""
    raise ConfigError(f"log_decay must have shape {channels}{(batch, heads, tokens)} or {(heads,)}, not {shape}")


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type in which states are kept: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def state_or_zeros(q: Tensor, v: Tensor, state: Tensor | None) -> Tensor:
    """The state to start from, in the type it is kept in."""
    if state is None:
        return q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3], dtype=wide(q.dtype))
    return state.to(wide(q.dtype))
