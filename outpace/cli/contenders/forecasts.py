"""The curves of forecasts: our gate at several thresholds, alone and on a second-order solver, and fixed intervals."""

from __future__ import annotations

from outpace.accel import GatedTaylor, IntervalTaylor, ScheduledTaylor, Solver
from outpace.cli.contenders.bench import Bench
from outpace.cli.contenders.calibrating import calibration_requests, made_when_asked
from outpace.cli.contenders.curve import curve, ours, thresholds
from outpace.evaluation import Contender

PAPER = (0.01, 0.02, 0.04, 0.08, 0.15)
INTERVALS = (2, 3, 4, 5, 6)
SPEEDUPS = (1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
"""At which scheduled forecasts are compared; the last for five times, which whole steps may fall short of."""

CALIBRATED = (2.0, 2.5, 3.0, 4.0, 6.0)
"""At which calibrated schedules are compared; each is calibrated by itself."""

CALIBRATION_PROMPTS = 8
"""Prompts that a schedule is calibrated on; no figure is read on them."""

SHORT = 0.56
"""Share of the steps that a gate on a second-order solver is also tried with: 28 of 50."""


@curve("scheduled")
def scheduled(bench: Bench) -> list[Contender]:
    """As many computed steps as are asked for, laid online."""
    return [
        ours(
            bench,
            f"scheduled-{x:g}",
            f"scheduled {x:g}x",
            "scheduled",
            "scheduled",
            bench.steps,
            ScheduledTaylor(speedup=x),
        )
        for x in SPEEDUPS
    ]


@curve("scheduled+solver")
def scheduled_on_solver(bench: Bench) -> list[Contender]:
    """The same on top of a second-order solver."""
    return [
        ours(
            bench,
            f"scheduled+dpm-{x:g}",
            f"scheduled {x:g}x on DPM++",
            "scheduled+solver",
            "scheduled on DPM++",
            bench.steps,
            Solver(),
            ScheduledTaylor(speedup=x),
        )
        for x in SPEEDUPS
    ]


@curve("scheduled-calibrated", named=True)
def scheduled_calibrated(bench: Bench) -> list[Contender]:
    """Schedules that were calibrated on other prompts first, which costs forty plain runs each."""
    return [
        made_when_asked(
            bench,
            f"scheduled-calibrated-{x:g}",
            f"scheduled {x:g}x, calibrated",
            "scheduled-calibrated",
            "scheduled, calibrated",
            {"speedup": x, "calibrated on": CALIBRATION_PROMPTS},
            lambda x=x: (calibrated_schedule(bench, x),),
        )
        for x in CALIBRATED
    ]


def calibrated_schedule(bench: Bench, speedup: float) -> ScheduledTaylor:
    """The schedule of a speed-up that was calibrated on prompts that no figure is read on."""
    requests = calibration_requests(bench, CALIBRATION_PROMPTS)
    prompts = [request.prompt for request in requests]
    return ScheduledTaylor.calibrate(
        bench.loaded.pipe, prompts, speedup=speedup, seed=requests[0].seed, **bench.arguments
    )


@curve("gated")
def gated(bench: Bench) -> list[Contender]:
    """Our gate with its defaults, at several thresholds."""
    return [
        ours(bench, f"gated-{t:g}", f"gated {t:g}", "gated", "gated", bench.steps, GatedTaylor(threshold=t))
        for t in thresholds(bench.steps)
    ]


@curve("gated-budget")
def gated_budget(bench: Bench) -> list[Contender]:
    """Our gate that measures the first block's forecast at every skip."""
    return [
        ours(
            bench,
            f"gated-budget-{t:g}",
            f"gated, budget {t:g}",
            "gated",
            "gated, budget",
            bench.steps,
            GatedTaylor(threshold=t, gate="budget"),
        )
        for t in thresholds(bench.steps)
    ]


@curve("gated-paper")
def gated_paper(bench: Bench) -> list[Contender]:
    """The gate as its authors run it."""
    return [
        ours(
            bench,
            f"gated-paper-{t:g}",
            f"gated, paper {t:g}",
            "gated",
            "gated, paper",
            bench.steps,
            GatedTaylor.paper(t),
        )
        for t in PAPER
    ]


@curve("gated+solver")
def gated_on_solver(bench: Bench) -> list[Contender]:
    """Our gate on top of a second-order solver."""
    return [
        ours(
            bench,
            f"gated+dpm-{t:g}",
            f"gated {t:g} on DPM++",
            "gated+solver",
            "gated on DPM++",
            bench.steps,
            Solver(),
            GatedTaylor(threshold=t),
        )
        for t in thresholds(bench.steps)
    ]


@curve("gated+solver-short")
def gated_on_short_solver(bench: Bench) -> list[Contender]:
    """Our gate on top of a second-order solver that takes fewer steps to begin with."""
    steps = max(4, round(SHORT * bench.steps))
    return [
        ours(
            bench,
            f"gated+dpm{steps}-{t:g}",
            f"gated {t:g} on DPM++, {steps} steps",
            "gated+solver",
            f"gated on DPM++, {steps} steps",
            steps,
            Solver(),
            GatedTaylor(threshold=t),
        )
        for t in thresholds(bench.steps)
    ]


@curve("interval")
def interval(bench: Bench) -> list[Contender]:
    return interval_of_order(bench, 1)


@curve("interval-order2")
def interval_order2(bench: Bench) -> list[Contender]:
    return interval_of_order(bench, 2)


def interval_of_order(bench: Bench, order: int) -> list[Contender]:
    """The last block forecast at fixed intervals, asking no questions."""
    return [
        ours(
            bench,
            f"interval-{n}" + ("" if order == 1 else f"-order{order}"),
            f"fixed interval {n}, order {order}",
            "interval",
            f"fixed interval, order {order}",
            bench.steps,
            IntervalTaylor(interval=n, order=order),
        )
        for n in INTERVALS
    ]
