"""Statistical top-k: a threshold from mean and spread keeps about k numbers, in one pass and with gradients.

Source: You et al., 2025, arXiv:2506.06644, equation 6. It counts right where numbers are normal; of those with heavier
tails it keeps fewer (Laplace about 0.86 k, Student with 3 degrees about 0.6 k).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from ...errors import ConfigError


def statistical_threshold(x: Tensor, k: int, *, allowed: Tensor | None = None) -> Tensor:
    """mean + std Q(1 - k / n) over the last dimension, float32 or wider; Q is the quantile of the normal distribution.

    -inf where n is at most k: all are kept.

    Shapes: x (..., n) -> (..., 1).

    Args:
        allowed: bool of x's shape: only these count, in n, mean and spread.

    Raises: ConfigError: k below 1, x not floating-point, or `allowed` of another shape or type.
    """
    if k < 1 or x.ndim < 1 or not x.is_floating_point():
        raise ConfigError(f"top-k takes k of at least 1 and floating-point numbers, not {k} and {x.dtype}")
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if allowed is None:
        if x.shape[-1] <= k:
            return x.new_full((*x.shape[:-1], 1), -torch.inf)
        spread, mean = torch.std_mean(x, -1, correction=0, keepdim=True)
        return mean + spread * NormalDist().inv_cdf(1 - k / x.shape[-1])
    if allowed.dtype != torch.bool or allowed.shape != x.shape:
        raise ConfigError(f"allowed must be bool {tuple(x.shape)}, not {allowed.dtype} {tuple(allowed.shape)}")
    count = allowed.sum(-1, keepdim=True)
    some = count.clamp(min=1)
    mean = x.where(allowed, x.new_zeros(())).sum(-1, keepdim=True) / some
    variance = (x - mean).where(allowed, x.new_zeros(())).square().sum(-1, keepdim=True) / some
    many = count > k
    quantile = torch.special.ndtri(1 - k / some.where(many, some.new_full((), k + 1)).to(x.dtype))
    # Not sqrt(0), whose gradient is infinite.
    spread = variance.where(variance > 0, variance.new_ones(())).sqrt() * (variance > 0)
    return (mean + spread * quantile).where(many, mean.new_full((), -torch.inf))


def statistical_top_k(x: Tensor, k: int) -> Tensor:
    """max(x - threshold, 0): about k of the last dimension stay above 0. x itself where all are kept.

    >>> statistical_top_k(torch.tensor([0.0, 1.0, 2.0, 9.0]), 1)
    tensor([0.0000, 0.0000, 0.0000, 3.6151])
    """
    threshold = statistical_threshold(x, k)
    if x.shape[-1] <= k:
        return x
    return (x - threshold).clamp(min=0).to(x.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticalSoftmax:
    """A softmax over the keys whose scores are above the threshold, for `outpace.kernels.attention.attend`."""

    k: int
    """Keys that a query is to keep, about; a query that sees no more keeps all."""

    def __call__(self, scores: Tensor, allowed: Tensor | None) -> Tensor:
        threshold = statistical_threshold(scores.detach(), self.k, allowed=allowed)
        kept = scores > threshold
        kept = kept if allowed is None else kept & allowed
        return scores.masked_fill(~kept, -torch.inf).softmax(-1).where(kept, scores.new_zeros(()))
