"""Who decides when a sample may be forecast: what a forecasting method supplies."""

from __future__ import annotations

from typing import Protocol

from ..moment import Moment
from .errors import Measured
from .history import History


class Forecasting(Protocol):
    """A method that says, by its policy, when samples are forecast."""

    @property
    def correct(self) -> bool:
        """True where the solver is told of forecasts (see replay.py)."""
        ...

    def policy(self) -> Policy:
        """Its decisions, for one sample and run."""
        ...


class Policy(Protocol):
    """Decides when one sample may be forecast, over one run. Made by a method; knows nothing of models."""

    probes: bool
    """True where the first block is run and its forecast error asked for before a sample is skipped."""
    coordinate: str
    degree: int
    """Of the replay of the solver over a finished run of forecasts; 0 replays nothing."""
    measures: bool
    """True where `observe` is to be told how far off forecasts proved, in the clean picture, at every computed step."""

    def forced(self, moment: Moment, history: History) -> str | None:
        """Why this sample has to be computed whatever the gate would say, or None."""

    def accept(self, moment: Moment, history: History, error: float | None) -> str | None:
        """None to forecast (what it costs is then noted in `history`), or why not."""

    def observe(self, measured: Measured) -> None:
        """What the step that was just computed says of the forecasts to come."""

    def history(self) -> History:
        """A fresh, empty history with the method's orders."""
        ...
