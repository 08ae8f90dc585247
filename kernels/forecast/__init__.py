"""Forecasting a tensor along the denoising trajectory from its values at earlier, irregularly spaced points."""

from .torch import combine, forecast, relative_error
from .weights import lagrange_weights, taylor_weights

__all__ = ["combine", "forecast", "lagrange_weights", "relative_error", "taylor_weights"]
