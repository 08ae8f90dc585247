"""Who decides when a sample may be forecast: what a forecasting method supplies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .forecast.errors import Measured
    from .forecast.history import History
    from .moment import Moment


class Forecasting(Protocol):
    """A method that says, by its policy, when samples are forecast."""

    @property
    def correct(self) -> bool:
        """True where the solver is told of forecasts (see replay.py)."""
        ...

    def policy(self) -> Policy:
        """Its decisions, for one sample and run."""
        ...


class Policy:
    """Decides when one sample may be forecast, over one run. Made by a method; knows nothing of models."""

    probes: bool = False
    """True where the first block is run and its forecast error asked for before a sample is skipped."""

    measures: bool = False
    """True where `sized` is to be told of the first computed step, and `observe` at every other how far off forecasts
    proved, in the clean picture."""

    coordinate: str = "step"
    """"step" or "sigma": what forecasts are polynomials in."""

    degree: float = 2.0
    """Of the replay of the solver over a finished run of forecasts; 0 replays nothing."""

    def history(self) -> History:
        """A fresh, empty history with the method's orders."""
        raise NotImplementedError

    depth: int = 0
    """Blocks that a partial step computes; what they give is remembered at every computed step. 0: there is none."""

    def begin(self, levels: list[float] | None, experts: int, note: Callable[[str], None], blocks: int = 1) -> None:
        """A run begins.

        Args:
            levels: noise level before each of its steps and after the last; None where no scheduler tells.
            experts: denoisers that take turns in it, each with a history of its own.
            note: keeps a sentence for the user.
            blocks: of the denoiser, where a step may compute some of them and forecast the rest; else 1.
        """

    def partial(self, moment: Moment) -> bool:
        """Whether this sample, which is forecast, runs the first `depth` blocks nevertheless."""
        return False

    def refuse_partial(self) -> None:
        """Partial steps are of no use in this denoiser: what its first blocks give is of another shape."""

    def forced(self, moment: Moment, history: History) -> str | None:
        """Why this sample has to be computed whatever the gate would say, or None."""
        return None

    def accept(self, moment: Moment, history: History, error: float | None) -> str | None:
        """None to forecast (what it costs is then noted in `history`), or why not."""
        return None

    def decided(self, moment: Moment, denoiser: str, computed: bool) -> None:
        """The sample is computed, or forecast, in this step by the denoiser of this name."""

    def sized(self, off: float) -> None:
        """The first step was computed, and its clean picture is this far from the size of pictures (`off_scale`).

        Infinitely far where guidance put it together from branches: it is drawn out as far as guidance likes, and its
        size says nothing. Not told where the denoiser's output does not say.
        """

    def observe(self, measured: Measured) -> None:
        """What the step that was just computed says of the forecasts to come."""
