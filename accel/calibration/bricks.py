"""Finds the schedule of bricks for a pipeline: costs are measured, schedules planned from them, runs decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

from ..bricks.brick import Brick
from ..handle import Acceleration
from ..methods import METHODS
from ..ranges import number, require, whole
from .brick_costs import CostTable, measure
from .brick_plan import (
    MOST,
    Shares,
    Tilt,
    bricks_of,
    cheapest_first,
    drawn,
    saved,
    single_steps,
    taken,
    that_saves,
    uniform,
)
from .runs import caller, made, psnr

Skipping = Any
"""A `BrickSkipping`, which calls this file and so is asked for by its name."""

APART = (1.0, 0.5, 0.0)
"""How much bricks are first let differ."""

TOLERANCE = 0.003
"""By how much a schedule may save less than it was asked to."""

STRIDE = 0.8
"""Logarithm of the factor by which a cost is first doubted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How a schedule is looked for. Deterministic: the same pipeline, prompts and settings give the same schedule.

    Raises: ConfigError for a setting out of its range.
    """

    bricks: int = 8
    """About how many groups the blocks are put in, 1 or more. More fit closer and take longer."""

    bins: int = 8
    """Ranges of noise levels of equally many steps, 1 or more."""

    looks: int = 2
    """Steps of each range at which costs are measured, 1 or more."""

    trials: int = 24
    """Real runs in which a schedule is improved beyond what the measured costs say, 0 or more."""

    steps: int | None = None
    """Steps of a run; None: as many as the pipeline takes by itself. A schedule holds for other numbers too, the less
    exactly the further they are."""

    seed: int = 0
    """Of the first sample's noise; each later sample has the next."""

    call: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline's call, such as guidance_scale."""

    def __post_init__(self) -> None:
        for name, low in (("bricks", 1), ("bins", 1), ("looks", 1), ("trials", 0)):
            whole(name, getattr(self, name), low)
        if self.steps is not None:
            whole("steps", self.steps, 4)

    def schedule(
        self,
        pipe: Any,
        prompts: Sequence[Any] | Callable[[], object],
        *,
        target: float | None = None,
        saves: float | None = None,
    ) -> Skipping:
        """The schedule for `pipe`; see `BrickSkipping.calibrate`."""
        require((target is None) != (saves is None), "give either a target in dB or the share of the blocks it saves")
        if saves is not None:
            number("saves", saves, 0.0, MOST)
            require(saves > 0, "saves must be above 0: nothing has to be calibrated to leave out nothing")
        if target is not None:
            number("target", target, 0.0)
        bench = self.bench(pipe, prompts)
        return bench.saving(saves) if saves is not None else bench.keeping(target or 0.0)

    def bench(self, pipe: Any, prompts: Sequence[Any] | Callable[[], object]) -> Calibrated:
        """What is measured once, for schedules of several savings."""
        if callable(prompts):
            run = prompts
        else:
            steps = {} if self.steps is None else {"num_inference_steps": self.steps}
            some = caller(pipe, prompts, {**self.call, **steps}, self.seed)
            run = partial(some, range(len(prompts)))
        table = measure(pipe, run, bricks=self.bricks, bins=self.bins, looks=self.looks)
        return Calibrated(self, pipe, run, table)


class Calibrated:
    """The measured costs of one pipeline, and real runs to hold schedules against.

    Attributes:
        table: the costs.
        runs: how many real runs were made so far.
    """

    def __init__(self, settings: Calibration, pipe: Any, run: Callable[[], object], table: CostTable) -> None:
        self.settings, self.table, self.runs = settings, table, 0
        self._pipe, self._run = pipe, run
        self._plain, self._peak = made(pipe, run)
        self._known: dict[str, float] = {}

    def saving(self, saves: float) -> Skipping:
        """The schedule that loses least where the share `saves` of all blocks is left out."""
        start, psnr = self._best_start(saves)
        return self._improved(saves, start, psnr)[0]

    def keeping(self, target: float) -> Skipping:
        """The schedule that leaves out the most and keeps a PSNR of `target` dB; the empty one where none does."""
        low, high = 0.0, MOST
        best = skipping()
        for _ in range(5):
            saves = (low + high) / 2
            start, psnr = self._best_start(saves)
            if psnr >= target:
                low, best = saves, self.method(self._shares(saves, start))
            else:
                high = saves
        # What improves the schedule just out of reach may bring it within.
        found, psnr = self._improved(high, *self._best_start(high))
        return found if psnr >= target else best

    def evenly(self, saves: float) -> Skipping:
        """The schedule that leaves every brick out in the same share of the steps, and saves as much."""
        return self.method(that_saves(self.table, saves, lambda asked: uniform(self.table, asked)))

    def drawn(self, saves: float, seed: int) -> Skipping:
        """A schedule of bricks and steps drawn at random that saves as much."""
        table = single_steps(self.table)
        return skipping(bricks_of(table, drawn(table, saves, seed)))

    def psnr(self, method: Skipping) -> float:
        """PSNR in dB of what is made under a schedule towards what is made plainly, on average over the prompts."""
        if method.schedule not in self._known:
            with Acceleration(self._pipe, [method]):
                pictures, _ = made(self._pipe, self._run)
            self.runs += 1
            self._known[method.schedule] = fmean(psnr(pictures, self._plain, self._peak))
        return self._known[method.schedule]

    def method(self, shares: Shares) -> Skipping:
        """The settings that have these shares."""
        return skipping(bricks_of(self.table, shares))

    def _shares(self, saves: float, tilt: Tilt | None, doubts: Tilt | None = None) -> Shares:
        """What is planned from the costs as `tilt` reads them, or, where it is None, the same share everywhere; both as
        `doubts` change them."""
        if tilt is None:
            return that_saves(self.table, saves, lambda asked: uniform(self.table, asked, doubts))
        raises = cheapest_first(self.table, tilt if doubts is None else replace(doubts, apart=tilt.apart))
        return that_saves(self.table, saves, lambda asked: taken(self.table, asked, raises))

    def _best_start(self, saves: float) -> tuple[Tilt | None, float]:
        """The reading of the costs whose plan does best in a real run; None where it is to ask nobody."""
        starts = [*(Tilt(apart=apart) for apart in APART), None]
        found = [(start, self.psnr(self.method(self._shares(saves, start)))) for start in starts]
        return max(found, key=lambda pair: pair[1])

    def _improved(self, saves: float, start: Tilt | None, psnr: float) -> tuple[Skipping, float]:
        """The schedule after trials: one cost after the other is doubted, and what a real run confirms is kept."""
        table, left, stride = self.table, self.settings.trials, STRIDE
        doubts = Tilt(bins=(0.0,) * len(table.bins), bricks=(0.0,) * len(table.groups))
        best = self.method(self._shares(saves, start))
        while left > 0 and stride > 0.1:
            for name, count in (("bins", len(table.bins)), ("bricks", len(table.groups))):
                for at in range(count):
                    for sign in (1.0, -1.0):
                        factors = list(getattr(doubts, name))
                        factors[at] += sign * stride
                        other = replace(doubts, **{name: tuple(factors)})
                        shares = self._shares(saves, start, other)
                        method = self.method(shares)
                        if method.schedule in self._known or saved(table, shares) < saves - TOLERANCE:
                            continue
                        if left == 0:
                            return best, psnr
                        left -= 1
                        if (got := self.psnr(method)) > psnr:
                            best, psnr, doubts = method, got, other
                            break
            stride /= 2
        return best, psnr


def skipping(bricks: Sequence[Brick] = ()) -> Skipping:
    """The method with this schedule."""
    return METHODS["bricks"](schedule="/".join(map(str, bricks)))  # pyright: ignore[reportCallIssue]
