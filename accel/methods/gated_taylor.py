"""Confidence-gated Taylor forecasting: the first block says, step by step, whether the last may be forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..policy import Policy
from ..ranges import number, one_of, require, whole
from . import METHODS, Method

if TYPE_CHECKING:
    from ..forecast import History
    from ..moment import Moment
    from ..part import Part, Shared


@METHODS.register("gated_taylor")
@dataclass(frozen=True, kw_only=True, slots=True)
class GatedTaylor(Method):
    """Forecasts the last block's output while the forecast of the first block's output proves right.

    Source: CG-Taylor, "Forecasting When to Forecast" (2025, arXiv:2508.02240): last-block forecast and prediction
    confidence gating. Differs from the paper by default: exact weights for irregular spacing instead of the biased
    recursion; a budget over each run of skips, planned from measured error rates,
    instead of a bound on each step; the order chosen by predicted error; the latents corrected when a run of skips
    ends; every sample decided by itself. `GatedTaylor.paper(threshold)` switches all of that off.

    Raises: ConfigError for a setting out of its range.
    """

    name: ClassVar[str] = "gated_taylor"
    place: ClassVar[str] = "forecast"

    threshold: float = 0.1
    """How much error is accepted, 0 or more. gate="plan" and "budget": percent of relative error that a run of skips
    may add up to, each weighted by how much it counts in the picture. gate="paper": relative L1 error of one step, as a
    fraction. 0 computes everything, bit for bit like the plain pipeline; higher is faster and drifts further."""

    late: float | None = None
    """Threshold at the end, where the noise is gone; `threshold` is then that of pure noise, and between the two it
    changes by the same factor for each part of the noise level. None: `threshold` throughout. 0 or more."""

    gate: str = "plan"
    """What is compared with the threshold. "plan": the error to expect of the last block's forecast, from how far off
    it proved at the computed steps before; a skip then costs no block. "budget": the error of the first block's
    forecast, measured at every skip, which costs that block. "paper": the same, each step by itself."""

    order: int | None = None
    """Degree of the forecast, 0 (reuse) to 3; None takes the order whose predicted error is least."""

    gate_order: int | None = None
    """Degree of the first block's forecast where it is measured, 0 to 3; None takes that of the last block's."""

    max_order: int = 2
    """Highest degree tried where `order` is None, 1 to 3; each degree keeps one more tensor a row."""

    warmup: int = 3
    """First steps that are always computed, 1 or more. Fewer is faster and riskier: early steps decide the layout."""

    cooldown: int = 0
    """Last steps that are always computed, 0 or more. One cost more than it gained on every pipeline measured."""

    max_skips: int = 6
    """Longest run of forecast steps, 1 or more. Except with gate="paper", a run is at most one step longer than the
    one before it."""

    coordinate: str = "step"
    """"sigma" or "step": what the forecast is a polynomial in. Schedules take small steps where the output changes
    fast, so that it is smoother in their steps than in the noise level."""

    exact: bool = True
    """False uses the recursion of published Taylor caches, which is biased from order 2 on."""

    correct: bool = True
    """Replay the solver over each finished run of skips with interpolated outputs. Costs no denoiser call."""

    def __post_init__(self) -> None:
        number("threshold", self.threshold, 0.0)
        if self.late is not None:
            number("late", self.late, 0.0)
        one_of("gate", self.gate, ("budget", "paper", "plan"))
        for name in ("order", "gate_order"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 0, 3)
        whole("max_order", self.max_order, 1, 3)
        whole("warmup", self.warmup, 1)
        whole("cooldown", self.cooldown, 0)
        whole("max_skips", self.max_skips, 1)
        one_of("coordinate", self.coordinate, ("sigma", "step"))
        for flag in ("exact", "correct"):
            require(isinstance(getattr(self, flag), bool), f"{flag} must be true or false, not {getattr(self, flag)!r}")

    @classmethod
    def paper(cls, threshold: float, *, order: int = 1, gate_order: int | None = None, warmup: int = 5) -> GatedTaylor:
        """The method as its authors run it; the preset "paper" holds their settings for each family.

        Args:
            threshold: bound on the first block's relative L1 error.
            order: degree of the last block's forecast.
            gate_order: degree of the first block's, where it differs.
            warmup: first steps that are computed.
        """
        return cls(
            threshold=threshold,
            gate="paper",
            order=order,
            gate_order=gate_order,
            warmup=warmup,
            cooldown=1,
            max_skips=1000,  # the paper knows no longest run
            exact=False,
            correct=False,
        )

    def bound(self, level: float) -> float:
        """The threshold at a noise level of 1 (pure noise) to 0 (picture)."""
        if self.late is None or self.threshold == 0:
            return self.threshold
        return self.threshold * (self.late / self.threshold) ** max(0.0, 1.0 - level)

    def part(self, shared: Shared) -> Part:
        from ..forecast import Forecaster

        return Forecaster([self.policy], shared, self.correct)

    def policy(self) -> GatedPolicy:
        """Its decisions, for one sample and run."""
        return GatedPolicy(self)


class GatedPolicy(Policy):
    """The decisions of GatedTaylor (see policy.Policy)."""

    def __init__(self, settings: GatedTaylor) -> None:
        self.settings = settings
        self.probes = settings.gate != "plan"
        self.coordinate = settings.coordinate

    def history(self) -> History:
        from ..forecast import History

        settings = self.settings
        return History(settings.order, settings.max_order, settings.exact, settings.gate_order)

    def forced(self, moment: Moment, history: History) -> str | None:
        settings = self.settings
        if settings.threshold == 0:
            return "threshold 0"
        if min(moment.step, history.pushed) < settings.warmup:
            return "warm-up"
        if moment.num_steps is not None and moment.step >= moment.num_steps - settings.cooldown:
            return "last steps"
        if history.skipped >= settings.max_skips:
            return "longest run reached"
        if settings.gate != "paper" and history.skipped > history.reach:
            return "one longer than the last"  # how errors grow beyond what was tried, nothing measured tells
        return None

    def accept(self, moment: Moment, history: History, error: float | None) -> str | None:
        settings = self.settings
        if settings.gate == "plan":
            at = moment.u if settings.coordinate == "sigma" else float(moment.step)
            error = history.expected = history.predicted_error(at, history.best_order(at))
        if error is None:
            return "nothing measured"
        bound = settings.bound(moment.u)
        if settings.gate == "paper":
            return None if error < bound else "gate"
        cost = 100.0 * error * moment.weight  # percent
        if history.spent + cost < bound:
            history.spent += cost
            return None
        return "budget spent"
