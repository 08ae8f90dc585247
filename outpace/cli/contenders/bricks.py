"""The curves of bricks: calibrated schedules at several savings, and rivals that leave out as much unasked.

Only where they are named: a schedule is calibrated when its contender is first run, with dozens of runs on calibration
prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from outpace.cli.contenders.calibrating import calibration_requests, made_when_asked
from outpace.cli.contenders.curve import curve

if TYPE_CHECKING:
    from outpace.accel import BrickSkipping
    from outpace.accel.calibration.bricks import Calibrated
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Contender

WORK = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the blocks that are left to run."""

DRAWS = 3
"""Random schedules of each share."""

PROMPTS = 8
"""Calibration prompts."""

SPEEDUPS = (1.11, 1.25, 1.43, 1.67, 2.0)
"""Where curves are compared when bricks are left out: at the shares in WORK."""


def calibrated(bench: Bench, **settings: Any) -> Calibrated:
    """What is known of the bricks of a bench's pipeline, measured once, on prompts that no figure is read on."""
    from outpace.accel.calibration.bricks import Calibration

    key = str(sorted(settings.items()))
    if key not in bench.bricks:
        prompts = settings.pop("prompts", PROMPTS)
        run = partial(bench.run, calibration_requests(bench, prompts), bench.steps)
        bench.bricks[key] = Calibration(**settings).bench(bench.loaded.pipe, run)
    return bench.bricks[key]


def contender(
    bench: Bench, name: str, label: str, kind: str, curve: str, settings: dict[str, Any],
    method: Callable[[], BrickSkipping],
) -> Contender:  # fmt: skip
    """A contender whose schedule is made when it is first asked."""
    return made_when_asked(bench, name, label, kind, curve, settings, lambda: (method(),))


@curve("bricks", named=True)
def bricks(bench: Bench) -> list[Contender]:
    """Calibrated schedules."""
    return [
        contender(
            bench, f"bricks-{work:g}", f"bricks, {work:.0%} of the blocks", "bricks", "bricks, calibrated",
            {"work": work}, lambda work=work: calibrated(bench).saving(1.0 - work),
        )
        for work in WORK
    ]  # fmt: skip


@curve("bricks-uniform", named=True)
def bricks_uniform(bench: Bench) -> list[Contender]:
    """Every block left out in as large a share of the steps, spread evenly."""
    return [
        contender(
            bench, f"bricks-uniform-{work:g}", f"uniform bricks, {work:.0%} of the blocks", "bricks-rival",
            "bricks, uniform", {"work": work}, lambda work=work: calibrated(bench).evenly(1.0 - work),
        )
        for work in WORK
    ]  # fmt: skip


@curve("bricks-random", named=True)
def bricks_random(bench: Bench) -> list[Contender]:
    """Bricks and steps drawn at random."""
    return [
        contender(
            bench, f"bricks-random-{work:g}-{draw}", f"random bricks, {work:.0%} of the blocks, draw {draw}",
            "bricks-rival", f"bricks, random draw {draw}", {"work": work, "draw": draw},
            lambda work=work, draw=draw: calibrated(bench).drawn(1.0 - work, draw),
        )
        for draw in range(1, DRAWS + 1)
        for work in WORK
    ]  # fmt: skip
