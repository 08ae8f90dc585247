"""Weighted sums of past values and the error of a forecast, accumulated in float32, by whatever does it in one pass.

Values are large (a transformer's tokens) and the work is all reading and writing, so nothing of their size is made in
float32: a forecast of k values reads them and writes one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..dispatch import OPERATIONS, Backend, Operation, deferred
from ..triton_limits import triton_backend
from .torch import combine as torch_combine
from .torch import sums as torch_sums
from .weights import lagrange_weights

TRITON = f"{__name__.rpartition('.')[0]}.triton"
SMALLEST = 1e-12
"""What a mean is divided by at least."""


def combine(values: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """sum_j weights[j] * values[j], accumulated in float32 (float64 stays), in a new tensor of the values' type.

    Differences of values kept in bfloat16 cancel badly, which is why values are stored and not their differences.

    Shapes: every value the same, any; the result likewise.

    Raises: ConfigError: no backend can take the values.
    """
    kept = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight != 0.0]
    if not kept:
        return torch.zeros_like(values[0])
    some, their = [value for value, _ in kept], [weight for _, weight in kept]
    return COMBINE.run(lambda run: run(some, their), some[0], len(some), _even(*some))


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
    return combination_error([forecast], [1.0], truth)


def combination_error(values: Sequence[torch.Tensor], weights: Sequence[float], truth: torch.Tensor) -> torch.Tensor:
    """relative_error(combine(values, weights), truth), without making the combination.

    Shapes: every value and the truth the same, any -> a scalar.
    """
    return ratio(error_sums(values, weights, truth), truth.numel())


def error_sums(values: Sequence[torch.Tensor], weights: Sequence[float], truth: torch.Tensor) -> torch.Tensor:
    """float32 (2): sum |combine(values, weights) - truth| and sum |truth|, for those who add up parts of a sample.

    Raises: ConfigError: no backend can take the values.
    """
    some, their = list(values), [float(weight) for weight in weights]
    return SUMS.run(lambda run: run(some, their, truth), truth, len(some), _even(*some, truth))


def ratio(sums: torch.Tensor, count: int) -> torch.Tensor:
    """The relative error that `error_sums` over `count` numbers make."""
    means = sums / max(count, 1)
    return means[0] / means[1].clamp_min(SMALLEST)


def _even(*tensors: torch.Tensor) -> bool:
    """Whether all lie in memory alike, without gaps, so that numbers are taken one after the other."""
    first = tensors[0]
    return all(t.is_contiguous() and t.dtype == first.dtype and t.shape == first.shape for t in tensors)


COMBINE = OPERATIONS.add(
    "weighted sums",
    Operation(
        name="weighted sums",
        backends=[
            triton_backend(TRITON, refuses="combine_refuses", run=deferred(TRITON, "combine")),
            Backend(name="torch", run=torch_combine),
        ],
    ),
)
SUMS = OPERATIONS.add(
    "forecast errors",
    Operation(
        name="forecast errors",
        backends=[
            triton_backend(TRITON, refuses="combine_refuses", run=deferred(TRITON, "sums")),
            Backend(name="torch", run=torch_sums),
        ],
    ),
)
