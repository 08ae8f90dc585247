"""Weighted sums of past values and the error of a forecast, accumulated in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .weights import lagrange_weights


def combine(values: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """sum_j weights[j] * values[j], accumulated in float32 (float64 stays), in a new tensor of the values' type.

    Differences of values kept in bfloat16 cancel badly, which is why values are stored and not their differences.

    Shapes: every value the same, any; the result likewise.
    """
    wide = torch.promote_types(values[0].dtype, torch.float32)
    total: torch.Tensor | None = None
    for value, weight in zip(values, weights, strict=True):
        if weight == 0.0:
            continue
        total = value.to(wide) * weight if total is None else total.add_(value, alpha=weight)
    if total is None:
        return torch.zeros_like(values[0])
    return total.to(values[0].dtype)


def forecast(values: Sequence[torch.Tensor], nodes: Sequence[float], at: float) -> torch.Tensor:
    """The polynomial through (node, value) pairs, evaluated at `at`; exact for degree <= len(nodes) - 1.

    Shapes: every value the same, any; the result likewise.

    >>> forecast([torch.tensor(1.0), torch.tensor(9.0)], [1.0, 3.0], 4.0)
    tensor(13.)
    """
    return combine(values, lagrange_weights(nodes, at))


def relative_error(forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """mean |forecast - truth| / mean |truth|, a float32 scalar on the tensors' device; NaN where either holds one.

    Source: the confidence gate of CG-Taylor (2025, arXiv:2508.02240), for one sample.
    """
    truth = truth.float()
    return (forecast.float() - truth).abs().mean() / truth.abs().mean().clamp_min(1e-12)
