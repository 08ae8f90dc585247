"""Attention with everything that papers change about it: window, bias, soft cap, normaliser, output gate.

Shapes: B batch, H query heads, G key heads, N queries, M keys, D width of keys, V width of values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from .inputs import check_query_and_key, scale_or_default

Normaliser = Callable[[Tensor, Tensor | None], Tensor]
"""(scores, allowed or None, both (B, H, N, M)) -> weights, 0 where not allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClippedSoftmax:
    """clip((zeta - gamma) softmax + gamma, 0, 1): weights may be exactly 0 or 1, and those get no gradient.

    Source: Bondarenko et al., 2023, arXiv:2306.12929, equation 4.
    """

    gamma: float
    """At most 0; the lower, the more weights are 0. The paper takes -alpha / keys, alpha 2 to 4."""
    zeta: float = 1.0
    """At least 1; the higher, the more weights are 1."""

    def __post_init__(self) -> None:
        if not self.gamma <= 0 or not self.zeta >= 1:
            raise ConfigError(
                f"a clipped softmax has gamma at most 0 and zeta at least 1, not {self.gamma} and {self.zeta}"
            )

    def __call__(self, scores: Tensor, allowed: Tensor | None) -> Tensor:
        weights = (self.zeta - self.gamma) * softmax(scores, allowed) + self.gamma
        return weights.clamp(0, 1)


def softmax(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Weights over the allowed keys; 0 everywhere where there is none."""
    if allowed is None:
        return scores.softmax(-1)
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1).where(allowed, scores.new_zeros(()))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    allowed: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    normaliser: Normaliser | None = None,
    gate: Tensor | None = None,
) -> Tensor:
    """gate * normaliser(cap(q k^T scale + bias)) v; torch's own fast kernels where nothing but masks and bias is asked.

    Queries are the last N of the M keys' positions, as in decoding. A query that may see no key gives 0.

    Shapes: q (B, H, N, D), k (B, G, M, D), v (B, G, M, V), H a multiple of G -> (B, H, N, V).

    Args:
        causal: a query sees keys up to its own position.
        window: and of these, only as many, its own the newest; without `causal`, as many to either side, its own once.
        allowed: bool, broadcasts to (B, H, N, M): True where a query may see a key.
        bias: added to the scores, broadcasts to (B, H, N, M): ALiBi, relative positions.
        scale: of the scores; 1 / sqrt(D) where None.
        soft_cap: c: scores become c tanh(scores / c).
        normaliser: from scores to weights; a softmax where None.
        gate: logits (B, H, N) or (B, H, N, V); outputs are multiplied by their sigmoid.

    Raises: ConfigError: shapes, types or settings that do not fit together.
    """
    _check(q, k, v, window, soft_cap, gate)
    allowed = _both(allowed, positions_allowed(q.shape[2], k.shape[2], causal=causal, window=window, device=q.device))
    for name, part in (("allowed", allowed), ("bias", bias)):
        _check_broadcasts(name, part, (q.shape[0], q.shape[1], q.shape[2], k.shape[2]))
    if normaliser is None and soft_cap is None:
        out = _fast(q, k, v, allowed, bias, scale)
    else:
        repeats = q.shape[1] // k.shape[1]
        scores = q @ k.repeat_interleave(repeats, 1).mT * scale_or_default(scale, q.shape[-1])
        scores = scores if bias is None else scores + bias
        scores = scores if soft_cap is None else soft_cap * (scores / soft_cap).tanh()
        seen = None if allowed is None else allowed.expand_as(scores)
        out = (normaliser or softmax)(scores, seen).to(v.dtype) @ v.repeat_interleave(repeats, 1)
    if gate is None:
        return out
    return out * (gate if gate.ndim == 4 else gate[..., None]).sigmoid()


def positions_allowed(
    queries: int, keys: int, *, causal: bool, window: int | None, device: torch.device | None = None
) -> Tensor | None:
    """bool (N, M): what a query may see by its position; None where that is everything."""
    if not causal and window is None:
        return None
    behind = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
    seen = behind >= 0 if causal else torch.ones_like(behind, dtype=torch.bool)
    return seen if window is None else seen & (behind.abs() < window)


def _fast(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, bias: Tensor | None, scale: float | None) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    # torch's fast kernel on a CPU takes biases of four dimensions only; any other is several times slower.
    bias = None if bias is None else bias[(None,) * (4 - bias.ndim)]
    if allowed is None:
        return F.scaled_dot_product_attention(q, k, v, bias, scale=scale, enable_gqa=grouped)
    mask = allowed if bias is None else bias.to(q.dtype).masked_fill(~allowed, -torch.inf)
    out = F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=grouped)
    return out.where(allowed.any(-1, keepdim=True), out.new_zeros(()))  # torch leaves NaN where no key is allowed


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other


def _check(q: Tensor, k: Tensor, v: Tensor, window: int | None, soft_cap: float | None, gate: Tensor | None) -> None:
    check_query_and_key(q, k)
    if v.ndim != 4 or v.shape[:3] != k.shape[:3] or v.dtype != k.dtype or v.device != k.device:
        raise ConfigError(
            f"values must have the batch, heads and tokens of keys {tuple(k.shape)} and their type {k.dtype}, not "
            f"{tuple(v.shape)} {v.dtype}"
        )
    if window is not None and window < 1:
        raise ConfigError(f"a window holds at least 1 key, not {window}")
    if soft_cap is not None and not soft_cap > 0:
        raise ConfigError(f"a soft cap is more than 0, not {soft_cap}")
    shapes = (tuple(q.shape[:3]), (*q.shape[:3], v.shape[3]))
    if gate is not None and tuple(gate.shape) not in shapes:
        raise ConfigError(f"the gate must have shape {shapes[0]} or {shapes[1]}, not {tuple(gate.shape)}")


def _check_broadcasts(name: str, part: Tensor | None, shape: tuple[int, ...]) -> None:
    if part is None:
        return
    wrong_type = part.dtype != torch.bool if name == "allowed" else not part.is_floating_point()
    fits = part.ndim <= 4 and all(a in (1, b) for a, b in zip(reversed(part.shape), reversed(shape), strict=False))
    if wrong_type or not fits:
        kind = "bool" if name == "allowed" else "floating-point"
        raise ConfigError(f"{name} must be {kind} and broadcast to {shape}, not {part.dtype} {tuple(part.shape)}")
