"""Fixed-interval last-block Taylor: the rival that asks no questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..policy import Policy
from ..ranges import one_of, require, whole
from . import METHODS, Method

if TYPE_CHECKING:
    from ..forecast import History
    from ..moment import Moment
    from ..part import Part, Shared


@METHODS.register("interval_taylor")
@dataclass(frozen=True, kw_only=True, slots=True)
class IntervalTaylor(Method):
    """Computes every n-th step and forecasts the last block's output in between; a skipped step runs no block.

    Source: TaylorSeer (Liu et al., 2025, arXiv:2503.06923) reduced to the last block ("TaylorSeer-Lite"), with the
    steps computed that diffusers' version computes.

    Raises: ConfigError for a setting out of its range.
    """

    name: ClassVar[str] = "interval_taylor"
    place: ClassVar[str] = "forecast"

    interval: int = 3
    """Every how many steps one is computed, 1 or more; 1 computes everything."""

    order: int = 1
    """Degree of the forecast, 0 (reuse) to 3."""

    warmup: int = 3
    """First steps that are always computed, 1 or more."""

    first: int = 1
    """Length of the first run of forecasts after computed neighbours, 1 or more, where the interval allows as many: how
    far the warm-up's trend reaches is not known."""

    cooldown: int = 0
    """Last steps that are always computed, 0 or more."""

    coordinate: str = "step"
    """"sigma" or "step": what the forecast is a polynomial in."""

    exact: bool = True
    """False uses the recursion of published Taylor caches, which is biased from order 2 on."""

    correct: bool = False
    """Replay the solver over each finished run of skips with interpolated outputs."""

    def __post_init__(self) -> None:
        whole("interval", self.interval, 1)
        whole("order", self.order, 0, 3)
        whole("warmup", self.warmup, 1)
        whole("first", self.first, 1)
        whole("cooldown", self.cooldown, 0)
        one_of("coordinate", self.coordinate, ("sigma", "step"))
        for flag in ("exact", "correct"):
            require(isinstance(getattr(self, flag), bool), f"{flag} must be true or false, not {getattr(self, flag)!r}")

    def part(self, shared: Shared) -> Part:
        from ..forecast import Forecaster

        return Forecaster([self.policy], shared, self.correct)

    def policy(self) -> IntervalPolicy:
        """Its decisions, for one sample and run."""
        return IntervalPolicy(self)


class IntervalPolicy(Policy):
    """The decisions of IntervalTaylor (see policy.Policy)."""

    def __init__(self, settings: IntervalTaylor) -> None:
        self.settings = settings
        self.coordinate = settings.coordinate

    def history(self) -> History:
        from ..forecast import History

        return History(self.settings.order, self.settings.order, self.settings.exact)

    def forced(self, moment: Moment, history: History) -> str | None:
        settings = self.settings
        if min(moment.step, history.pushed) < settings.warmup:
            return "warm-up"
        if moment.num_steps is not None and moment.step >= moment.num_steps - settings.cooldown:
            return "last steps"
        longest = settings.interval - 1 if history.reach else min(settings.first, settings.interval - 1)
        return "interval" if history.skipped >= longest else None
