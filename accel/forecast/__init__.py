"""Forecasting the last block: histories, the forecaster that uses them, and what corrects the solver afterwards."""

from .forecaster import Forecaster
from .history import History
from .policy import Policy

__all__ = ["Forecaster", "History", "Policy"]
