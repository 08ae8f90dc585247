"""Forecasting a tensor along the denoising trajectory from its values at earlier, irregularly spaced points."""

from .weighted import COMBINE, SUMS, combination_error, combine, error_sums, forecast, ratio, relative_error
from .weights import lagrange_weights, taylor_weights

__all__ = [
    "COMBINE",
    "SUMS",
    "combination_error",
    "combine",
    "error_sums",
    "forecast",
    "lagrange_weights",
    "ratio",
    "relative_error",
    "taylor_weights",
]
