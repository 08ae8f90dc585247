"""Scheduled forecasting: as many computed steps as asked for, laid where they are of most use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import ConfigError
from ..policy import Policy
from ..ranges import number, require, whole
from . import METHODS, Method

if TYPE_CHECKING:
    from ..forecast import History
    from ..forecast.errors import Measured
    from ..moment import Moment
    from ..part import Part, Shared

LAST_SKIPS = 0.35
"""Forecasts in the last run beside those in the others: no computed step follows whose output could correct it."""

SMALL, LARGE = 0.09, 0.19
"""How far the first clean picture is from the size of pictures (`off_scale`): up to SMALL the steps lie evenly, from
LARGE on as dense early as they ever do. The most on calibration prompts of the pocket flux, and the least of wan."""

DENSEST = 1.4
"""Exponent of the densest early layout that is chosen online; on the trained pocket pipelines 1.8 was never better."""

GRADES = 2
"""From evenly to densest, in so many grades: samples that differ little are computed at the same steps, so that a batch
of them runs whole."""

UNTOLD = 0.6
"""Times the gap between computed steps, how far the exponent is above 1 where the first clean picture says nothing:
with predicted noise, and with solvers that add some. The fewer steps are computed, the dearer is an early one. Chosen
on calibration prompts of dit, in the mean over nine speed-ups at 28 and 50 steps; 0.7, and 1.2 for every gap, are as
good."""

FAR, MOST_LEFT = 0.4, 8
"""Share of the clean picture that a forecast may miss by before the next gap is made shorter, while so many computed
steps are left; with fewer, the gaps that grow for it cost more than it gains. Chosen on calibration prompts of `photo`,
and of `flux` and `wan` under guidance 6; unguided, or guided as pockets are, the others never miss by as much."""

LOST, HARD = 0.6, 1.8
"""Share of the clean picture by which the first forecast misses where the early steps decide what is seen, and the
exponent from there on. Chosen as FAR was."""

HIGHEST = 2
"""Highest order of a forecast."""

NEAR = 0.02 + 1e-9
"""How far off the share that was asked for the computed one may be without a word."""

PART = 0.5
"""Where the partial step lies in the last run of forecasts, as a share of it. Earlier, as one of the computed steps, it
costs 4 to 10 dB on the pocket dit: what is forecast from it carries its error on."""

UNTRIED = 0.5
"""Order of the second run's forecasts, before order 1 could be measured against order 0."""


@METHODS.register("scheduled_taylor")
@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduledTaylor(Method):
    """Computes exactly the share of the steps that was asked for, and forecasts the last block on the others.

    The computed steps begin with the first and need no warm-up. How much denser they lie early is asked of the clean
    picture that the first predicts, and where a forecast proves to have missed by much, the next gap is shorter; all
    are denser early if that was the first. The order of each run's forecast, and the degree of the replay that
    corrects the solver after it, are what the computed steps prove to have been best, in the clean picture and at the
    distance that is skipped.
    Every sample decides by itself. `ScheduledTaylor.calibrate` finds the places once for a pipeline instead.

    Source: the forecast is that of TaylorSeer (Liu et al., 2025, arXiv:2503.06923) on the last block; schedules of a
    fixed budget in the manner of LeMiCa (2025) and BudCache; mixing orders by measured error is our own.

    Raises: ConfigError for a setting out of its range.
    """

    name: ClassVar[str] = "scheduled_taylor"
    place: ClassVar[str] = "forecast"

    speedup: float = 3.0
    """How many times fewer transformer blocks are computed over a run, 1 or more; the nearest whole number of steps is,
    and what that comes to is said. 1 computes everything, bit for bit like the plain pipeline; higher is faster and
    drifts further."""

    levels: str = ""
    """Noise levels (1 pure noise, 0 picture) of the computed steps, falling, joined by slashes, as `calibrate` finds
    them; empty lays the steps online. For another number of steps or another speed-up they are interpolated."""

    steps: int | None = None
    """Steps of a run that `levels` were calibrated for, 1 or more; another number is noted in the trace."""

    early: float | None = None
    """How much denser the computed steps lie early, 1 (evenly) to 3: step N (k / K)^early. None asks the clean
    picture that the first step predicts."""

    order: float | None = None
    """Degree of the forecast, 0 (reuse) to 2, also between whole numbers; None takes what was measured to be best."""

    exact: bool = False
    """Keep to the share where whole steps are more than two percent off: a step after the last computed one runs its
    first blocks, and what the others add is forecast. It is for a budget that has to be kept: the picture gains next to
    nothing (docs/scheduling.md), so that a speed-up which whole steps give is the better choice. Three more tensors a
    row are remembered."""

    replay: float | None = None
    """Degree of the interpolation with which the solver is stepped again over each finished run of forecasts, 1 to 2;
    0 replays nothing. None takes what was measured to be best. Costs no denoiser call."""

    def __post_init__(self) -> None:
        number("speedup", self.speedup, 1.0)
        if self.early is not None:
            number("early", self.early, 1.0, 3.0)
        if self.order is not None:
            number("order", self.order, 0.0, 2.0)
        if self.replay is not None:
            number("replay", self.replay, 0.0, 2.0)
            require(self.replay == 0 or self.replay >= 1, f"replay must be 0 or from 1 to 2, not {self.replay!r}")
        if self.steps is not None:
            whole("steps", self.steps, 1)
        given: Any = self.levels
        if isinstance(given, (tuple, list)):
            given = "/".join(f"{level:.6g}" for level in given)
        elif isinstance(given, (int, float)) and not isinstance(given, bool):
            given = f"{given:g}"  # what the command line takes for a number is one level
        require(isinstance(given, str), f"levels must be noise levels joined by slashes, not {self.levels!r}")
        object.__setattr__(self, "levels", given)
        levels = self.noise_levels
        for level in levels:
            number("a level", level, 0.0, 1.0)
        require(list(levels) == sorted(set(levels), reverse=True), f"levels must fall, not {self.levels}")

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """`levels`, as numbers."""
        try:
            return tuple(float(part) for part in self.levels.split("/") if part.strip())
        except ValueError as error:
            raise ConfigError(f"levels hold what is no number: {error}; write them as in 1/0.9/0.6/0.2") from error

    @classmethod
    def calibrate(
        cls,
        pipe: Any,
        prompts: Sequence[Any],
        *,
        speedup: float = 4.0,
        reference: str = "plain",
        cost: float = 40.0,
        resume: Any = None,
        progress: bool = False,
        seed: int = 0,
        **call: Any,
    ) -> ScheduledTaylor:
        """The schedule that keeps the pictures of `pipe` best at a speed-up, found by running it.

        Args:
            pipe: a diffusers pipeline with a scheduler.
            prompts: to calibrate with, as the pipeline takes them; others than those that the schedule is judged by.
                Eight are enough.
            speedup: how many times fewer blocks are computed, above 1.
            reference: what pictures are held against: "plain" (the same steps computed in full) or "converged" (four
                times the steps of DPM-Solver++, which costs as much).
            cost: most that may be spent, in plain runs of one prompt each.
            resume: a file in which what was measured is kept, so that a calibration that was stopped goes on.
            progress: whether a bar is shown.
            seed: of the first prompt's noise; each later prompt has the next.
            call: further arguments of the pipeline's call, such as num_inference_steps, height, guidance_scale.

        Raises: ConfigError for settings out of their range, or too little cost; InputError for a resume file of
            another calibration.
        """
        from ..calibration.schedule import calibrate

        return calibrate(
            pipe,
            prompts,
            speedup=speedup,
            reference=reference,
            cost=cost,
            resume=resume,
            progress=progress,
            seed=seed,
            call=call,
        )

    @property
    def correct(self) -> bool:
        """True where the solver is told of forecasts."""
        return self.speedup > 1.0

    def part(self, shared: Shared) -> Part:
        from ..forecast import Forecaster

        return Forecaster([self.policy], shared, self.correct)

    def policy(self) -> SchedulePolicy:
        """Its decisions, for one sample and run."""
        return SchedulePolicy(self)


class SchedulePolicy(Policy):
    """The decisions of ScheduledTaylor (see policy.Policy)."""

    def __init__(self, settings: ScheduledTaylor) -> None:
        self.settings = settings
        self.measures = settings.speedup > 1.0
        self.degree = 1.0 if settings.replay is None else settings.replay
        self.order = 0.0 if settings.order is None else settings.order
        self.total: int | None = None
        self.levels: list[float] = []
        self.note: Callable[[str], None] = lambda text: None
        self.budget, self.reserved, self.done, self.next = 0, 0, 0, 0
        self.newest = 0
        self.part, self.part_at = 0, -1
        self.places: list[int] = []
        self.early = min(DENSEST, 1.0 + UNTOLD / settings.speedup) if settings.early is None else settings.early
        self.measured = False
        self.missed = 0.0
        self._expert = ""

    def history(self) -> History:
        from ..forecast import History

        return History(self.order, HIGHEST, rated=False)

    @property
    def depth(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Blocks of the partial step; kept at the computed steps that it can be forecast from, and nowhere else."""
        return self.part if self.budget - self.done <= HIGHEST else 0

    def begin(self, levels: list[float] | None, experts: int, note: Callable[[str], None], blocks: int = 1) -> None:
        if levels is None:
            return
        settings, total = self.settings, len(levels) - 1
        self.total, self.levels, self.note = total, levels[:-1], note
        if settings.levels and settings.steps not in (None, total) and total > settings.speedup:
            note(f"the schedule was calibrated for {settings.steps} steps and is mapped to {total} by noise level")
        self._divide(blocks)
        self.reserved = min(experts - 1, self.budget - 1) if self.budget < total else 0

    def _divide(self, blocks: int) -> None:
        """Say how many steps are computed and where, and how many blocks of one more."""
        total, speedup = self.total or 1, self.settings.speedup
        blocks = blocks if self.settings.exact else 1
        self.budget, self.part = divided(total, speedup, blocks)
        reached = total / (self.budget + self.part / blocks)
        if abs(reached / speedup - 1.0) > NEAR:
            unit = "whole steps allow" if blocks == 1 else f"steps of {blocks} blocks allow"
            self.note(
                f"{total} steps are computed in {self.budget}, which is {reached:.2f}x and the nearest to {speedup:g}x "
                f"that {unit}"
            )
        if self.budget > 1 and self.settings.levels:
            self.places = places_of(self.settings.noise_levels, self.levels, self.budget)

    def partial(self, moment: Moment) -> bool:
        return self.part > 0 and moment.step == self.part_at

    def refuse_partial(self) -> None:
        if self.part:
            self._divide(1)

    def forced(self, moment: Moment, history: History) -> str | None:
        history.order = min(self.order, float(history.max_order))
        return "scheduled" if moment.step >= self.next else None

    def decided(self, moment: Moment, denoiser: str, computed: bool) -> None:
        if not computed:
            return
        self.done += 1
        self.newest, self.missed = moment.step, 0.0
        if self._expert and denoiser != self._expert:
            self.reserved = 0
        self._expert = denoiser
        if self.done >= 2 and self.settings.order is None and not self.measured:
            self.order = 1.0  # nothing can be measured here: no scheduler, or one that adds noise
        self._plan(moment.step)

    def sized(self, off: float) -> None:
        if self.done == 1 and self.settings.early is None:
            dense = math.log(max(SMALL, off) / SMALL) / math.log(LARGE / SMALL)
            self.early = 1.0 + (DENSEST - 1.0) * round(GRADES * min(1.0, dense)) / GRADES
            self._plan(self.newest)

    def observe(self, measured: Measured) -> None:
        self.measured, self.missed = True, measured.forecast.error
        settings = self.settings
        if self.done == 2 and self.missed > LOST and settings.early is None:
            self.early = max(self.early, HARD)
        if settings.order is None:
            self.order = measured.forecast.order if len(measured.forecast.errors) > 1 else UNTRIED
        if settings.replay is None and measured.replay is not None:
            # Measured from neighbours twice as far apart as those of the steps that are interpolated. Of a smooth curve
            # the error left by degree 2 falls by one more power of the distance: half as far, half as far from 2.
            self.degree = 1.0 + measured.replay.order / 2.0
        self._plan(measured.step)  # by what was missed; and a partial step may have been refused since it was decided

    def _plan(self, step: int) -> None:
        """Say which step is computed next, now that `step` is."""
        if self.total is None:
            self.next = max(step + 1, math.ceil(self.done * self.settings.speedup))
            return
        left = self.budget - self.done - self.reserved
        if left <= 0:
            self.next, self.part_at = self.total, step + max(1, round(PART * (self.total - step)))
        elif self.places:
            later = [place for place in self.places if place > step]
            # A step that had to be computed besides takes the place of one of the schedule.
            self.next = later[max(0, len(later) - left)] if later else self.total
        else:
            self.next = min(max(step + 1, round(self._place_after(step, left))), self.total - left)
            if self.missed > FAR and left >= MOST_LEFT and self.settings.early is None:
                # A forecast of order 1 misses by the square of the gap.
                self.next = step + max(1, round((self.next - step) * math.sqrt(FAR / self.missed)))
        if self.part and left > 0:
            self.next = max(step + 1, min(self.next, self.total - left - 1))  # a step is left for the partial one

    def _place_after(self, step: int, left: int) -> float:
        """Where the first of `left` more computed steps lies on the curve N (k / K)^s that goes through this one."""
        s, end = self.early, self._end()
        at = (step / end) ** (1.0 / s)
        return end * (at + (1.0 - at) / (left + 1)) ** s

    def _end(self) -> float:
        """Where the run would end if its last run of forecasts were as long as the others.

        With gaps of g steps, g - 1 of them forecast: total = (budget - 1) g + 1 + LAST_SKIPS (g - 1).
        """
        total = self.total or 1
        gap = (total - 1.0 + LAST_SKIPS) / (self.budget - 1.0 + LAST_SKIPS)
        return gap * self.budget


def divided(total: int, speedup: float, blocks: int) -> tuple[int, int]:
    """How many of `total` steps are computed, and how many blocks of one more, so that a share is kept to.

    Whole steps where they come within two percent of it.

    Args:
        blocks: of a step; 1 where it cannot be divided.

    >>> divided(50, 2.0, 12), divided(28, 3.0, 12), divided(8, 3.0, 12), divided(8, 3.0, 1)
    ((25, 0), (9, 4), (2, 8), (3, 0))
    """
    exact = total / speedup
    whole = max(1, round(exact))
    if blocks <= 1 or exact < 1.0 or abs(whole / exact - 1.0) <= NEAR:
        return whole, 0
    full, part = divmod(round(exact * blocks), blocks)
    return full, part


def places_of(schedule: Sequence[float], levels: Sequence[float], count: int) -> list[int]:
    """The `count` steps of a run at which a schedule of noise levels computes.

    Args:
        schedule: noise levels of its computed steps, falling; of any number, read as a curve over the computed steps
            that ends where the last run of forecasts does. Fewer steps have longer runs, and the last of them, too.
        levels: noise level before each step of the run.
    """
    places: list[int] = []
    for k in range(count):
        at = k * (len(schedule) - 1 + LAST_SKIPS) / (count - 1 + LAST_SKIPS) if len(schedule) > 1 else 0.0
        low = min(int(at), len(schedule) - 1)
        high = min(low + 1, len(schedule) - 1)
        wanted = schedule[low] + (at - low) * (schedule[high] - schedule[low])
        nearest = min(range(len(levels)), key=lambda i: abs(levels[i] - wanted))
        least = places[-1] + 1 if places else 0
        places.append(min(max(nearest, least), len(levels) - (count - k)))
    return places
