"""Rotary position embeddings: queries and keys turned by their positions.

Source: Su et al., 2021, arXiv:2104.09864.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, start: int, base: float = 10_000.0) -> Tensor:
    """x (..., T, D), D even, at positions start, start + 1, ...; the halves of D are the pairs."""
    half, wide = x.shape[-1] // 2, torch.promote_types(x.dtype, torch.float32)
    frequencies = base ** (-torch.arange(half, device=x.device, dtype=wide) / half)
    angles = torch.arange(start, start + x.shape[-2], device=x.device)[:, None] * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
