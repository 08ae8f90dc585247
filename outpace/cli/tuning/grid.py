"""What `outpace tune` tries: solvers, steps, forecasts with their settings, sparse attention, the presets.

Each kind of candidate is a `Part`, registered in PARTS (see part.py); a new one is tried where it is registered, and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from outpace.accel import (
    PRESETS,
    AdaSpa,
    BrickSkipping,
    GatedTaylor,
    IntervalTaylor,
    ScheduledTaylor,
    Solver,
    find_family,
)
from outpace.cli.contenders.bricks import calibrated as bricks_of
from outpace.cli.contenders.curve import fewer, ours, with_steps
from outpace.cli.contenders.labels import file_name, kind_of, label_of
from outpace.cli.tuning.part import PARTS, Part, Trial, Way
from outpace.cli.tuning.schedules import calibrated_ways, may_calibrate, schedules
from outpace.evaluation.attention import block_work
from outpace.evaluation.tune import Candidate

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Contender

THRESHOLDS = (0.15, 0.8, 0.045, 2.2, 0.33, 0.1, 8.0, 0.07, 1.3, 0.22, 4.0, 0.5)
"""The coarse ones first: where time is short, the end of a list is not tried."""

SHORTER = (0.56, 0.4)
"""Shares of the steps that a second-order solver under a forecast is also tried with."""

VARIED = (0.15, 0.8, 2.2)
"""Thresholds at which the forecast's other settings are varied."""

VARIANTS: tuple[dict[str, Any], ...] = (
    {"gate": "budget"},
    {"warmup": 2},
    {"warmup": 5},
    {"max_skips": 3},
    {"max_skips": 12},
    {"order": 1},
    {"order": 2},
)
RECALLS = (0.99, 0.98, 0.995, 0.95)
"""Of sparse attention."""

SAVINGS = (0.15, 0.3, 0.45)
"""Of the blocks, by bricks."""

BRICK_RUNS = 30.0
"""Plain runs of one prompt that the calibration of bricks costs."""

FEWEST_STEPS = 8
"""With fewer, the change that a brick made a step before says little of the next."""

MATTERS = 0.99
"""Sparse attention is tried where it leaves at most this share of the work at a low recall."""


def parts_for(trial: Trial) -> list[Part]:
    """The parts that the trial's pipeline has a use for, knowing what to try on it."""
    parts = [part for _, part in PARTS.items() if part.matters is None or part.matters(trial)]
    return [part if part.found is None else replace(part, ways=part.found(trial)) for part in parts]


def settings_grid(bench: Bench, parts: Iterable[Part]) -> list[Candidate]:
    """Every candidate, each once, the presets first and then the parts in turn."""
    found: dict[str, Candidate] = {}
    family = find_family(bench.loaded.pipe.transformer).name
    for name, preset in PRESETS.items():
        candidate = candidate_of(bench, bench.steps, tuple(preset.methods(family)), preset=name)
        found.setdefault(candidate.name, candidate)
    turns = chain.from_iterable(zip_longest(*(part.ways(bench.steps) for part in parts)))
    for steps, methods in (way for way in turns if way is not None):
        candidate = candidate_of(bench, steps, methods)
        found.setdefault(candidate.name, candidate)
    return list(found.values())


def attention_matters(trial: Trial) -> bool:
    """True where sparse attention leaves out any work worth speaking of."""
    made = trial.bench.under((AdaSpa(recall=0.8),), [trial.request], trial.bench.steps)
    return block_work((made[0].trace or {}).get("attention")) <= MATTERS


def counts(steps: int) -> list[int]:
    """How many steps fewer steps are."""
    return [n for n in (*fewer(steps), *fewer(steps, (1.2, 1.4))) if 1 < n < steps]


def gated_on_shorter(share: float) -> Callable[[int], list[Way]]:
    """The gate on a second-order solver that takes `share` of the steps."""
    return lambda steps: [(max(4, round(share * steps)), (DPM, GatedTaylor(threshold=t))) for t in THRESHOLDS]


def sparse_ways(steps: int) -> list[Way]:
    """Sparse attention alone, and under the gate."""
    alone: list[Way] = [(steps, (AdaSpa(recall=r),)) for r in RECALLS]
    return alone + [(steps, (GatedTaylor(threshold=t), AdaSpa(recall=r))) for t in VARIED for r in RECALLS[:2]]


def bricks_matter(trial: Trial) -> bool:
    """True where steps are near enough, there are prompts to calibrate on (a pocket's, or the yardstick's), and the
    budget has room for what that costs."""
    bench = trial.bench
    known = bench.loaded.pocket is not None or bench.yardstick is not None
    return known and trial.runs >= BRICK_RUNS and bench.steps >= FEWEST_STEPS


def brick_ways(trial: Trial) -> Callable[[int], list[Way]]:
    """Schedules of bricks, alone and on a second-order solver or under the gate, as cheaply calibrated as can be."""
    known = bricks_of(trial.bench, prompts=2, looks=1, trials=0)
    methods = [known.saving(saves) for saves in SAVINGS]

    def ways(steps: int) -> list[Way]:
        alone: list[Way] = [(steps, (method,)) for method in methods]
        others: tuple[Method, ...] = (GatedTaylor(threshold=VARIED[0]), DPM)
        return alone + [(steps, (other, method)) for method in methods[:2] for other in others]

    return ways


DPM, UNIPC = Solver(solver="dpm++"), Solver(solver="unipc")
PARTS.add("fewer steps, DPM++", Part(ways=lambda steps: [(n, (DPM,)) for n in counts(steps)]))
PARTS.add("schedule, calibrated", Part(ways=lambda steps: [], found=calibrated_ways, matters=may_calibrate))
PARTS.add("schedule", Part(ways=schedules()))
PARTS.add("gate", Part(ways=lambda steps: [(steps, (GatedTaylor(threshold=t),)) for t in THRESHOLDS]))
PARTS.add("schedule on DPM++", Part(ways=schedules(DPM)))
for share in SHORTER:
    PARTS.add(f"gate on DPM++, {share:.0%} of the steps", Part(ways=gated_on_shorter(share)))
PARTS.add("gate on DPM++", Part(ways=lambda steps: [(steps, (DPM, GatedTaylor(threshold=t))) for t in THRESHOLDS[:8]]))
PARTS.add("fewer steps", Part(ways=lambda steps: [(n, ()) for n in counts(steps)]))
PARTS.add(
    "fixed interval",
    Part(ways=lambda steps: [(steps, (IntervalTaylor(interval=n, order=k),)) for n in (3, 2, 4, 5, 6) for k in (1, 2)]),
)
PARTS.add(
    "gate, varied",
    Part(ways=lambda steps: [(steps, (GatedTaylor(threshold=t, **v),)) for v in VARIANTS for t in VARIED]),
)
PARTS.add("fewer steps, UniPC", Part(ways=lambda steps: [(n, (UNIPC,)) for n in counts(steps)]))
PARTS.add("sparse attention", Part(ways=sparse_ways, matters=attention_matters))
PARTS.add("bricks", Part(ways=lambda steps: [], found=brick_ways, matters=bricks_matter))


def candidate_of(bench: Bench, steps: int, methods: tuple[Method, ...], *, preset: str = "") -> Candidate:
    """One way to run the bench's pipeline, with the contender that does it."""
    contender = contender_of(bench, steps, methods)
    return Candidate(
        name=contender.name,
        label=f"preset {preset}: {contender.label}" if preset else contender.label,
        cost=guess(methods, steps) / bench.steps,
        payload=(contender, methods, preset),
        kept=bool(preset),
    )


def contender_of(bench: Bench, steps: int, methods: tuple[Method, ...]) -> Contender:
    """The contender that runs `methods`; its name tells every setting that is not a default."""
    if not methods:
        return with_steps(bench, steps)
    spelt = "+".join(
        ",".join([m.name, *(f"{k}={v}" for k, v in m.to_dict().items() if k not in ("method", "version"))])
        for m in methods
    )
    label = label_of(methods) + (f", {steps} steps" if steps != bench.steps else "")
    return ours(bench, f"{steps}-{file_name(spelt)}", label, kind_of(methods), "", steps, *methods)


def guess(methods: Sequence[Method], steps: int) -> float:
    """How many steps' worth of blocks `methods` will need of `steps`, before anything is measured.

    Of a gate nobody knows; that skips grow like the root of the threshold is what the pocket pipelines showed.
    """
    worth = float(steps)
    for method in methods:
        if isinstance(method, ScheduledTaylor):
            worth = steps / method.speedup
        if isinstance(method, (GatedTaylor, IntervalTaylor)):
            always = min(steps, method.warmup + method.cooldown)
            if isinstance(method, IntervalTaylor):
                run = method.interval - 1.0
            else:
                run = min(method.max_skips, 4.7 * method.threshold**0.5)
            worth = always + (steps - always) / (1 + run)
    if any(isinstance(method, BrickSkipping) for method in methods):
        worth *= 0.75
    return 0.9 * worth if any(isinstance(method, AdaSpa) for method in methods) else worth
