"""Sums of log-decays between two tokens, made by adding only.

A sum between two tokens as the difference of two cumulative sums loses its digits after a harsh gate, and is NaN after
a gate that is shut, of log-decay -inf. Added up directly it keeps them, and every exponential is at most 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def through(gate: Tensor) -> Tensor:
    """From the first token through each one, itself included: over the second last dimension."""
    return gate.cumsum(-2)


def after(gate: Tensor) -> Tensor:
    """From behind each token to the last one: over the second last dimension."""
    later = torch.cat([gate[..., 1:, :], torch.zeros_like(gate[..., :1, :])], -2)
    return later.flip(-2).cumsum(-2).flip(-2)


def between(gate: Tensor) -> Tensor:
    """(..., t, s, G): from behind token s through token t; 0 where t is not behind s.

    Shapes: gate (..., T, G) -> (..., T, T, G).
    """
    tokens = gate.shape[-2]
    behind = torch.ones(tokens, tokens, dtype=torch.bool, device=gate.device).tril(-1)[..., None]
    return gate[..., :, None, :].where(behind, gate.new_zeros(())).cumsum(-3)
