"""Forecasting the last block: histories, the forecaster that uses them, and what corrects the solver afterwards."""

from .forecaster import Forecaster
from .history import History

__all__ = ["Forecaster", "History"]
