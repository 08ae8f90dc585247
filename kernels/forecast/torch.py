"""Weighted sums and errors in plain torch, a chunk at a time: float32 numbers are never held of a whole tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

CHUNK = 1 << 20
"""Numbers worked on at once: 4 MB of float32, which stay in a processor's cache."""


def combine(values: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """See `weighted.combine`; no weight is 0."""
    first = values[0]
    if first.dtype in (torch.float32, torch.float64):  # the result is the only thing made
        total = first * weights[0]
        for value, weight in zip(values[1:], weights[1:], strict=True):
            total.add_(value, alpha=weight)
        return total
    out = torch.empty_like(first, memory_format=torch.contiguous_format)
    wide = _buffer(first)
    for into, *parts in _chunks(out, *values):
        into.copy_(_weighted(parts, weights, wide))
    return out


def sums(values: Sequence[torch.Tensor], weights: Sequence[float], truth: torch.Tensor) -> torch.Tensor:
    """See `weighted.error_sums`."""
    missed = truth.new_zeros((), dtype=torch.float32)
    whole = torch.zeros_like(missed)
    wide = _buffer(truth)
    for true, *parts in _chunks(truth, *values):
        guess = _weighted(parts, weights, wide)
        if guess.dtype != true.dtype:  # what would be forecast is a number of the values' type
            guess.copy_(guess.to(true.dtype))
        missed += guess.sub_(true).abs_().sum()
        whole += guess.copy_(true).abs_().sum()
    return torch.stack([missed, whole])


def _buffer(like: torch.Tensor) -> torch.Tensor:
    """Room for a chunk in float32, or float64 where `like` is."""
    return like.new_empty(min(CHUNK, like.numel()), dtype=torch.promote_types(like.dtype, torch.float32))


def _weighted(parts: Sequence[torch.Tensor], weights: Sequence[float], wide: torch.Tensor) -> torch.Tensor:
    """Made in `wide`."""
    total = wide[: parts[0].numel()].copy_(parts[0]).mul_(weights[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total.add_(part, alpha=weight)
    return total


def _chunks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """All of them, flat, some numbers of each at a time."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    return zip(*(one.split(CHUNK) for one in flat), strict=True)
