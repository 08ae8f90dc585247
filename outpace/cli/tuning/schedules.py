"""Schedules for `outpace tune`: as much work as a target allows or asks for, laid online or calibrated beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from outpace.accel import Method, ScheduledTaylor
from outpace.cli.contenders.bricks import calibration_requests

if TYPE_CHECKING:
    from outpace.cli.tuning.part import Trial, Way
    from outpace.evaluation.tune import Target

SPEEDUPS = (3.0, 2.0, 4.0, 2.5, 5.0, 1.6, 3.5, 1.3, 2.2, 6.0, 1.8, 2.8)
"""Times less work, the telling ones first: where time is short, the end of a list is not tried."""

CALIBRATED = 4.0
"""Times less work that a schedule is calibrated for where the target names no share of it; others are mapped."""

MAPPED = (3.0, 2.5, 5.0, 2.0, 1.6)
"""Times less work that a calibrated schedule is also tried at, read as a curve over its computed steps."""

PROMPTS = 4
"""Prompts that a schedule is calibrated on."""

RUNS = 24.0
"""Plain runs of one prompt that it costs."""


def computed(steps: int, speedups: Sequence[float]) -> list[float]:
    """The speed-ups that whole steps give next to `speedups`, none of them below the one asked for.

    >>> computed(50, (3.0, 2.9, 2.0))
    [3.13, 2.94, 2.0]
    """
    counts = dict.fromkeys(int(steps / speedup + 1e-9) for speedup in speedups)
    return [round(steps / count, 2) for count in counts if 1 < count < steps]


def schedules(*others: Method) -> Callable[[int], list[Way]]:
    """Schedules laid online, with other methods beside them."""
    return lambda steps: [(steps, (*others, ScheduledTaylor(speedup=x))) for x in computed(steps, SPEEDUPS)]


def least_speedup(target: Target | None) -> float | None:
    """How many times less work a target asks for; None where it leaves that open."""
    asked = {"speedup": lambda bound: bound, "blocks": lambda bound: 1.0 / bound}
    found = [asked[clause.name](clause.bound) for clause in target.clauses if clause.name in asked] if target else []
    return max(found, default=None)


def may_calibrate(trial: Trial) -> bool:
    """True where prompts are known, and the budget has room for what a calibration costs."""
    bench = trial.bench
    if trial.runs < RUNS or bench.loaded.prompt_argument not in ("prompt", "class_labels"):
        return False
    asked = least_speedup(trial.target)
    return bool(computed(bench.steps, (CALIBRATED if asked is None else asked,)))


def calibrated_ways(trial: Trial) -> Callable[[int], list[Way]]:
    """A schedule calibrated for the share that the target asks for, and where it asks for none, mapped to others."""
    asked, steps = least_speedup(trial.target), trial.bench.steps
    speedup = computed(steps, (CALIBRATED if asked is None else asked,))[0]
    held = Method.from_dict(trial.once(f"schedule-{speedup:g}x", lambda: calibrated(trial, speedup)))
    assert isinstance(held, ScheduledTaylor)
    settings = {k: v for k, v in held.to_dict().items() if k not in ("method", "version", "speedup")}
    others = computed(steps, MAPPED) if asked is None else []

    def ways(steps: int) -> list[Way]:
        return [(steps, (ScheduledTaylor(**settings, speedup=x),)) for x in dict.fromkeys((speedup, *others))]

    return ways


def calibrated(trial: Trial, speedup: float) -> dict[str, Any]:
    """A schedule for the trial's pipeline as plain data, found on prompts that the search does not judge by."""
    bench = trial.bench
    if bench.loaded.pocket is not None or bench.yardstick is not None:
        requests = calibration_requests(bench, PROMPTS)
        prompts, seed = [request.prompt for request in requests], requests[0].seed
    else:  # with other noise
        prompts, seed = [trial.request.prompt] * PROMPTS, trial.request.seed + 1_000_003
    method = ScheduledTaylor.calibrate(
        bench.loaded.pipe, prompts, speedup=speedup, cost=RUNS, seed=seed, **bench.arguments
    )
    return method.to_dict()
