"""What a denoiser call was given, read off its arguments: timestep, latents, guidance rows."""

from __future__ import annotations

from typing import Any

import torch


def timestep_of(named: dict[str, Any]) -> float:
    """The call's timestep as one number; the largest where tokens have their own."""
    for name in ("timestep", "t", "timesteps", "vision_timesteps", "bb_ca_time"):
        value = named.get(name)
        if isinstance(value, torch.Tensor) and value.numel():
            return float(value.max())
        if isinstance(value, (int, float)):
            return float(value)
    return 0.0


def latents_of(named: dict[str, Any]) -> Any:
    """The noisy latents among a transformer's arguments: a tensor, a list of tensors, or None."""
    for name in ("hidden_states", "x", "latents", "bb_ca"):
        if named.get(name) is not None:
            return named[name]
    return None


def tied_rows(named: dict[str, Any]) -> int:
    """How many rows carry the same latents: 2 with guidance batched in one tensor, 3 with two guidances, else 1."""
    latents = latents_of(named)
    if latents is None:
        return 1
    batch = len(latents)
    for parts in (3, 2):
        if batch < parts or batch % parts:
            continue
        size = batch // parts
        chunks = [latents[i * size : (i + 1) * size] for i in range(parts)]
        if all(_equal(chunks[0], chunk) for chunk in chunks[1:]):
            return parts
    return 1


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
