"""Forecasting a tensor along the denoising trajectory from its values at earlier, irregularly spaced points."""

from .torch import combine, forecast, relative_error
from .weights import lagrange_weights, leave_one_out, taylor_weights

__all__ = ["combine", "forecast", "lagrange_weights", "leave_one_out", "relative_error", "taylor_weights"]
