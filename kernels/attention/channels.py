"""Attention among channels: each channel is a token as long as the picture, so that cost is linear in its size.

Source: Zamir et al., 2022, arXiv:2111.09881 (transposed attention); Li et al., 2023, arXiv:2301.02031 (ReLU in place of
the softmax).
Shapes: B batch, H heads, C channels of a head, N positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError, UnknownNameError
from ...registry import suggestion
from ..inputs import check_one_type

NORMALISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda scores: scores.softmax(-1),
    "relu": lambda scores: scores.relu(),
}
"""Name -> from scores to weights."""


def channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature_H: Tensor, *, normaliser: str = "softmax") -> Tensor:
    """a(cosine(q, k) * temperature) v over channels, the cosine over positions.

    Shapes: q, k and v (B, H, C, N), any number of positions -> (B, H, C, N).

    Args:
        temperature_H: what the cosines are multiplied by in each head.
        normaliser: a: "softmax", or "relu", which leaves weights of exactly 0.

    Raises: ConfigError, UnknownNameError: shapes that do not fit together, or a normaliser that is not known.
    """
    _check(q, k, v, temperature_H, normaliser)
    return channel_weights(q, k, temperature_H, normaliser=normaliser) @ v


def channel_weights(q: Tensor, k: Tensor, temperature_H: Tensor, *, normaliser: str = "softmax") -> Tensor:
    """(B, H, C, C): the weights that `channel_attention` mixes channels with."""
    # Queries are normalised before the sums, which cannot overflow so; keys behind them, where there are few numbers.
    scores = F.normalize(q, dim=-1) @ k.mT
    factor = temperature_H.reshape(-1, 1, 1) / k.norm(dim=-1).clamp_min(1e-12)[..., None, :]
    return NORMALISERS[normaliser](scores * factor)


def reference_channel_attention(
    q: Tensor, k: Tensor, v: Tensor, temperature_H: Tensor, *, normaliser: str = "softmax"
) -> Tensor:
    """The same channel by channel, float64."""
    q, k, v, temperature = (x.double() for x in (q, k, v, temperature_H))
    out = torch.zeros_like(v)
    for head in range(q.shape[1]):
        for channel in range(q.shape[2]):
            one = q[:, head, channel, None]
            norms = one.norm(dim=-1) * k[:, head].norm(dim=-1)
            scores = (one * k[:, head]).sum(-1) / norms * temperature[head]
            weights = scores.softmax(-1) if normaliser == "softmax" else scores.clamp(min=0)
            out[:, head, channel] = (weights[..., None] * v[:, head]).sum(1)
    return out


def _check(q: Tensor, k: Tensor, v: Tensor, temperature_H: Tensor, normaliser: str) -> None:
    if normaliser not in NORMALISERS:
        known = list(NORMALISERS)
        raise UnknownNameError(f"channel attention has no normaliser '{normaliser}'{suggestion(normaliser, known)}")
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape or tuple(temperature_H.shape) != (q.shape[1],):
        raise ConfigError(
            "channel attention takes q, k and v of one shape (batch, heads, channels, positions) and a temperature "
            f"(heads), not {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)} and {tuple(temperature_H.shape)}"
        )
    check_one_type("channel attention", q=q, k=k, v=v, temperature_H=temperature_H)
