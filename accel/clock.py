"""Where the denoising is: run, step, noise level and guidance branch of every denoiser call.

The scheduler tells: `set_timesteps` begins a run, `step` ends a step, and the calls between two steps are the branches.
The two methods are tapped on the instance, never on the class, and put back by `detach`. Without a scheduler (a bare
transformer), and where the scheduler that is followed turns out not to be the one that steps, run and step are read off
the timesteps: the same one again is the next branch, one that turns back begins a new run. A branch is named by
diffusers' `cache_context` where the pipeline enters one, and by its place in the step where it does not. Whether the
scheduler adds noise is not asked of its name: its steps are watched for draws.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..errors import ConflictError
from .draws import DrawsOfFunctions, DrawsOfOperations
from .levels import noise_levels, numbers
from .moment import Moment
from .reads import Reads
from .tap import Tap

Reading = Callable[[float], float]
READINGS: tuple[Reading, ...] = (
    lambda t: t,
    lambda t: 1000.0 * t,
    lambda t: 1000.0 * (1.0 - t),
    lambda t: 1000.0 * t / max(1.0 - t, 1e-6),
)
"""How transformers are told the scheduler's timestep: as it is, in 0..1, counted up towards the picture, or as the
share of noise in a sum of picture and noise."""
WRITINGS: tuple[Reading, ...] = (
    lambda t: t,
    lambda t: t / 1000.0,
    lambda t: 1.0 - t / 1000.0,
    lambda t: t / (1000.0 + t),
)
"""Their inverses, in the same order."""

TIMESTEP_TOLERANCE = 5.0
"""Rounding to bfloat16 moves a timestep of 0..1000 by up to 4."""

SHORT = 3
"""A run of fewer steps is hardly one."""

OF_A_RUN = (
    "followed", "levels", "astray", "noisy", "run", "step", "first", "_set_here", "_calls_in_step", "_reading",
    "_times", "_step_t", "unexpected", "_usual", "_last_t", "_scale", "_gap", "_direction",
)  # fmt: skip
"""What the clock knows of the run under way, and not of the pipeline."""


@dataclass(eq=False)
class Followed:
    """A scheduler that is listened to."""

    scheduler: Any
    taps: list[Tap] = field(default_factory=list)
    set_by: object = None
    """Stands for the run that set its timesteps last."""
    caller: Callable[[], Any] = lambda: None
    """The request that this scheduler alone belongs to, or None."""
    left: bool = False

    def leave(self) -> None:
        """Leave the scheduler as it was found."""
        self.left = True
        for tap in self.taps:
            tap.remove()
        self.taps.clear()


class Clock:
    """Counts runs, steps and branches for the denoisers of one pipeline.

    Args:
        on_run: called at the start of each run, before its first denoiser call.
        around_step: called as `around_step(step, *args, **kwargs)` in place of the scheduler's `step`, which it calls.
        turn: entered around everything that a scheduler tells, with the request that it belongs to or None; sees to
            it that the run is that of this request, or of whoever calls.
    """

    def __init__(
        self,
        on_run: Callable[[], None],
        around_step: Callable[..., Any] | None = None,
        turn: Callable[[Any], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._on_run, self._around_step, self._turn = on_run, around_step, turn
        self.reads = Reads()
        self._source: Callable[[], Any] | None = None
        self._own: Followed | None = None
        """The pipeline's scheduler."""
        self._runs = 0
        self.turned_back = 0
        """Runs in a row that were told by a timestep turning back, after hardly any step."""
        self._start()

    def _start(self) -> None:
        """Know of no run."""
        self.followed = self._own
        """The scheduler of the request that is served."""
        self.levels: list[float] | None = None
        self.astray = False
        """True where the scheduler's steps and the denoiser's timesteps did not agree in this run."""
        self.noisy = False
        """True where a step of this run has drawn noise."""
        self.run, self.step, self.first = -1, 0, 0
        self._set_here: object = None
        self.unexpected = False
        """True where a timestep that was read late proves to be another than the scheduler's: the steps are not its."""
        self._calls_in_step = 0
        self._usual = 0
        """Calls that the step before had."""
        self._reading: Reading | None = None
        self._times: list[float] = []
        self._step_t: float | None = None
        self._read: tuple[Any, list[float]] = (None, [])
        """The timesteps that were last brought over from the scheduler, and their numbers."""
        self._last_t: float | None = None
        self._scale, self._gap, self._direction = 1.0, 0.0, 0.0

    def suspend(self) -> dict[str, Any]:
        """Hand over everything of the run under way, and begin with nothing: another request is served."""
        held = {name: getattr(self, name) for name in OF_A_RUN}
        self._start()
        return held

    def resume(self, held: dict[str, Any]) -> None:
        """Take back what `suspend` handed over."""
        for name, value in held.items():
            setattr(self, name, value)
        if self.followed is not None and self.followed.left:  # the pipeline was given another scheduler meanwhile
            self.followed, self.levels = self._own, None

    @property
    def scheduler(self) -> Any:
        """The scheduler that is followed, or None."""
        return None if self.followed is None else self.followed.scheduler

    def attach(self, scheduler: Any, source: Callable[[], Any] | None = None) -> None:
        """Follow `scheduler`, leaving the one followed so far.

        Args:
            source: tells the pipeline's scheduler of the moment, which a user may replace at any time.
        """
        self.detach()
        self._own = self.followed = self.follow(scheduler)
        self._source, self._set_here = source, None
        if getattr(scheduler, "num_inference_steps", None) is not None:
            self.levels = noise_levels(scheduler)

    def follow(self, scheduler: Any) -> Followed:
        """Tap a scheduler; what it tells counts while it is the one followed."""
        found = Followed(scheduler)
        found.taps = [
            Tap(scheduler, "set_timesteps", partial(self._set_timesteps, found)),
            Tap(scheduler, "step", self._watch),
            Tap(scheduler, "step", partial(self._step, found)),
        ]
        return found

    def detach(self) -> None:
        """Leave the scheduler as it was found."""
        if self._own is not None:
            self._own.leave()
        self._own = self.followed = self.levels = self._source = None

    def begin_run(self) -> None:
        """A new run starts with the next call."""
        self.run, self._runs = self._runs, self._runs + 1
        self.unexpected = False
        self.step = self.first = self._calls_in_step = self._usual = 0
        self._step_t = None
        self._reading, self._times, self.noisy = None, [], False
        self._last_t, self._gap, self._direction = None, 0.0, 0.0
        self._on_run()

    def foreseen(self, timestep: float | torch.Tensor) -> float:
        """The number in `timestep`; on a device it is not waited for where the scheduler's steps tell what it must be.

        Whether it was that is then seen when a number is next read: see `unexpected`.
        """
        if not isinstance(timestep, torch.Tensor):
            return timestep
        at, reading = self.first + self.step, self._reading
        unusual = self._calls_in_step >= self._usual  # in the first step, and where the scheduler no longer steps
        if self.unexpected or self.levels is None or reading is None or unusual or at >= len(self._times):
            return self.reads.read([timestep])[0]
        run, expected = self.run, self._times[at]

        def seen(found: float) -> None:
            if run == self.run and abs(reading(found) - expected) > TIMESTEP_TOLERANCE:
                self.unexpected = True

        self.reads.later(timestep, seen)
        if self._calls_in_step and self._step_t is not None:
            return self._step_t
        return WRITINGS[READINGS.index(reading)](expected)

    def tick(self, timestep: float, context: str | None) -> Moment:
        """The moment of the denoiser call that begins now.

        Args:
            timestep: as the denoiser is given it, in whatever unit.
            context: name of the `cache_context` in force, or None.
        """
        self._follow_source()
        if self.levels is not None:
            self._follow_scheduler(timestep)
        if self.levels is None:
            self._follow_timesteps(timestep)
        leader = self._calls_in_step == 0
        branch = context if context is not None else str(self._calls_in_step)
        self._calls_in_step += 1
        u, du, total = self._level(timestep)
        return Moment(
            run=self.run, step=self.step, branch=branch, leader=leader, timestep=timestep, u=u, du=du, num_steps=total
        )

    @property
    def calls(self) -> int:
        """Calls of the denoiser in the step under way: more than one where guidance makes its branches one by one."""
        return self._calls_in_step

    @property
    def place(self) -> int:
        """Place of the step under way among `levels`; later than its number where a run begins part of the way down."""
        return min(self.first + self.step, len(self.levels or ()) - 2)

    def _level(self, timestep: float) -> tuple[float, float, int | None]:
        if self.levels is None:
            return timestep / self._scale, self._gap or 1.0 / 50.0, None
        index = self.place
        return self.levels[index], abs(self.levels[index + 1] - self.levels[index]), len(self.levels) - 1 - self.first

    def _follow_source(self) -> None:
        """Follow the pipeline's scheduler where the user put another in its place."""
        current = self._source() if self._source is not None else None
        if self.followed is not self._own or current is None or current is self.scheduler:
            return
        if hasattr(current, "set_timesteps"):
            self.attach(current, self._source)
            self.begin_run()

    def _follow_scheduler(self, timestep: float) -> None:
        """Check that the scheduler's steps are those of this denoiser; leave its word where they are not."""
        if self.run < 0:
            self.begin_run()
        if self.step == 0 and self._calls_in_step == 0:
            self._find_first(timestep)
            if self._reading is None and self._set_here is None:  # an old schedule, which nobody set for this run
                self.astray, self.levels = True, None
                return
        if self._calls_in_step == 0:
            self._step_t = timestep
        at = self.first + self.step
        # Where it is not known how the denoiser is told the time, no step of the scheduler may lie between two of them.
        beyond = at >= len(self._times) or timestep != self._step_t or self.unexpected
        if beyond or (self._reading and abs(self._reading(timestep) - self._times[at]) > TIMESTEP_TOLERANCE):
            self.astray, self.levels = True, None
            self.begin_run()

    def _schedule(self) -> list[float]:
        """The scheduler's timesteps, brought over once."""
        timesteps = self.scheduler.timesteps
        if self._read[0] is not timesteps:
            self._read = (timesteps, numbers(timesteps))
        return self._read[1]

    def _find_first(self, timestep: float) -> None:
        """Find the step that a run begins with (not the first in image-to-image), and how timesteps are written."""
        self._times = self._schedule()
        begin = getattr(self.scheduler, "_begin_index", None)
        places = range(len(self._times)) if begin is None else [min(begin, len(self._times) - 1)]

        def fit(rank: int, place: int) -> tuple[bool, bool, float, int, int]:
            # The first place wins where it fits; else the nearest is where an image-to-image run begins.
            distance = abs(READINGS[rank](timestep) - self._times[place])
            return distance > TIMESTEP_TOLERANCE, place > 0, distance, rank, place

        # In a schedule of 0..1000 a value of 0..1 is a fraction, not the schedule's last step.
        fraction = abs(timestep) <= 1.0 < self._times[0]
        ranks = range(1, len(READINGS)) if fraction else (0,)
        unfit, _, _, rank, place = min(fit(rank, place) for rank in ranks for place in places)
        self._reading, self.first = (None, begin or 0) if unfit else (READINGS[rank], place)

    def _follow_timesteps(self, timestep: float) -> None:
        if self.run < 0:
            self.begin_run()
        if self._last_t is not None and timestep != self._last_t:
            direction = 1.0 if timestep > self._last_t else -1.0
            if self._direction and direction != self._direction:
                self.turned_back = self.turned_back + 1 if self.step < SHORT else 0
                self.begin_run()
            else:
                self._direction, self._gap = direction, abs(timestep - self._last_t) / self._scale
                self.step += 1
                self._calls_in_step = 0
        if self._last_t is None:
            self._scale = 1000.0 if abs(timestep) > 1.0 else 1.0
        self._last_t = timestep

    def _set_timesteps(self, of: Followed, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._turn(of.caller()):
            result = inner(*args, **kwargs)
            if of is self.followed:
                self.levels, self.astray = noise_levels(of.scheduler), False
                if self.levels is not None:
                    self._schedule()
                self._set_here = of.set_by = object()
                self.begin_run()
            return result

    def _watch(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.noisy:  # nothing is left to be learnt
            return inner(*args, **kwargs)
        first = self.levels is None or self.step == 0
        with DrawsOfOperations() if first else DrawsOfFunctions() as draws:
            result = inner(*args, **kwargs)
        self.noisy |= draws.seen
        return result

    def _step(self, of: Followed, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._turn(of.caller()):
            if of is not self.followed:
                return inner(*args, **kwargs)
            if self.levels is not None and of.set_by is not self._set_here:
                self.levels = None
                self._on_run()
                raise ConflictError(
                    f"two requests step one {type(of.scheduler).__name__}; give each pipeline a scheduler of its own: "
                    "type(pipe).from_pipe(pipe, scheduler=type(pipe.scheduler).from_config(pipe.scheduler.config))"
                )
            result = self._around_step(inner, *args, **kwargs) if self._around_step else inner(*args, **kwargs)
            if self.levels is not None:
                self.step += 1
                self._usual, self._calls_in_step = self._calls_in_step, 0
            return result
