"""What a denoiser call was given, read off its arguments: timestep, latents, guidance rows."""

from __future__ import annotations

from typing import Any

import torch

from .families import Family
from .families.family import Named
from .reads import Reads


def timestep_of(named: Named, family: Family) -> float | torch.Tensor:
    """The call's timestep, as a number or a tensor of one; the largest where samples or tokens have their own."""
    value = named.get(family.time)
    if isinstance(value, torch.Tensor) and value.numel():
        return value.max() if value.numel() > 1 else value
    return float(value) if isinstance(value, (int, float)) else 0.0


def tied_rows(latents: Any, reads: Reads) -> int:
    """How many rows carry the same latents: 2 with guidance batched in one tensor, 3 with two guidances, else 1.

    Args:
        latents: a tensor, a list of tensors, or None.
    """
    batch = 1 if latents is None else len(latents)
    possible = [parts for parts in (3, 2) if batch >= parts and batch % parts == 0]
    found = reads.read([agreement(latents, parts) for parts in possible])
    return next((parts for parts, agrees in zip(possible, found, strict=True) if agrees), 1)


def agreement(latents: Any, parts: int) -> torch.Tensor:
    """Whether the latents are the same so many times over: a number that is not 0 where they are, not read yet."""
    size = len(latents) // parts
    chunks = [_tensors(latents[i * size : (i + 1) * size]) for i in range(parts)]
    same = torch.ones((), dtype=torch.bool, device=chunks[0][0].device)
    for chunk in chunks[1:]:
        for one, other in zip(chunks[0], chunk, strict=True):
            if one.shape != other.shape:
                return torch.zeros_like(same)
            same = same & (one == other).all()
    return same


def _tensors(latents: Any) -> list[torch.Tensor]:
    return [latents] if isinstance(latents, torch.Tensor) else [t for one in latents for t in _tensors(one)]
