"""The curves of sparse attention, and of its static rivals; only where they are named, since short attention has
nothing to leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from outpace.accel import AdaSpa, GatedTaylor, ScheduledTaylor, StaticSparsity
from outpace.accel.patterns import PATTERNS
from outpace.cli.contenders.calibrating import calibration_requests, made_when_asked
from outpace.cli.contenders.curve import curve, fewer, ours, with_steps
from outpace.cli.contenders.labels import kind_of, label_of

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.accel.calibration.attention import CalibratedAttention
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Contender

RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
SAVES = (0.3, 0.4, 0.5, 0.6)
"""Shares of all attention that calibrated densities leave out."""
DENSITIES = (0.6, 0.45, 0.3, 0.2, 0.1)
PROMPTS = 2
"""Calibration prompts: each is a run of the plain pipeline and one for every trial."""
SLIGHTLY = (1.15, 1.25, 1.4, 1.55)
"""How many times fewer steps are tried beside sparse attention, which alone gains less than skipped steps do."""

SPEEDUPS = (1.25, 1.5, 2.0, 2.5, 3.0)
"""Where curves are compared when attention is sparse, for the same reason."""


def points(
    bench: Bench, name: str, setting: str, values: Sequence[float], make: Callable[[float], Method], *others: Method
) -> list[Contender]:
    """One contender for each of `values`, with what `make` gives for it on top of `others`."""
    made = []
    for value in values:
        methods = (*others, make(value))
        words = label_of(methods, varied=("adaspa", setting))
        kind = kind_of(methods)
        made.append(ours(bench, f"{name}-{value:g}", label_of(methods), kind, words, bench.steps, *methods))
    return made


@curve("adaspa", named=True)
def adaspa(bench: Bench) -> list[Contender]:
    """Sparse attention at several recalls."""
    return points(bench, "adaspa", "recall", RECALLS, lambda r: AdaSpa(recall=r))


@curve("adaspa-sparsity", named=True)
def adaspa_sparsity(bench: Bench) -> list[Contender]:
    """Sparse attention by the paper's rule for what is kept, with the rest as we run it."""
    return points(bench, "adaspa-sparsity", "sparsity", SPARSITIES, lambda s: AdaSpa(sparsity=s))


@curve("adaspa-paper", named=True)
def adaspa_paper(bench: Bench) -> list[Contender]:
    """Sparse attention as its authors run it."""
    made = points(bench, "adaspa-paper", "sparsity", SPARSITIES, AdaSpa.paper)
    return [
        replace(c, label=f"AdaSpa, paper {s:g}", curve="AdaSpa, paper") for c, s in zip(made, SPARSITIES, strict=True)
    ]


@curve("gated+adaspa", named=True)
def gated_adaspa(bench: Bench) -> list[Contender]:
    """Our gate with its default threshold, with sparse attention at several recalls."""
    return points(bench, "gated+adaspa", "recall", RECALLS, lambda r: AdaSpa(recall=r), GatedTaylor())


def calibrated(bench: Bench) -> CalibratedAttention:
    """What is known of the attention of a bench's pipeline, measured once, on prompts that no figure is read on."""
    from outpace.accel.calibration.attention import AttentionCalibration

    if bench.attention is None:
        run = partial(bench.run, calibration_requests(bench, PROMPTS), bench.steps)
        bench.attention = AttentionCalibration().bench(bench.loaded.pipe, run)
    return bench.attention


def calibrated_points(bench: Bench, name: str, label: str, *others: Method) -> list[Contender]:
    """Calibrated densities at several savings, on top of `others`."""
    kind = kind_of((*others, AdaSpa()))
    return [
        made_when_asked(
            bench, f"{name}-{saves:g}", f"{label}, {saves:.0%} of the attention left out", kind, label,
            {"saves": saves, "methods": [m.to_dict() for m in others]},
            lambda saves=saves: (*others, calibrated(bench).saving(saves)), batch=1,
        )
        for saves in SAVES
    ]  # fmt: skip


@curve("adaspa-calibrated", named=True)
def adaspa_calibrated(bench: Bench) -> list[Contender]:
    """Sparse attention with densities calibrated by layer, head and noise level."""
    return calibrated_points(bench, "adaspa-calibrated", "AdaSpa, calibrated")


@curve("scheduled+adaspa-calibrated", named=True)
def scheduled_adaspa_calibrated(bench: Bench) -> list[Contender]:
    """The same under a scheduled forecast."""
    label = "AdaSpa, calibrated, on scheduled 2"
    return calibrated_points(bench, "scheduled+adaspa-calibrated", label, ScheduledTaylor(speedup=2.0))


def static(pattern: str, bench: Bench) -> list[Contender]:
    """A static pattern at several densities."""
    label = PATTERNS[pattern].label
    made = points(bench, pattern, "density", DENSITIES, lambda d: StaticSparsity(pattern=pattern, density=d))
    return [replace(c, label=f"{label}, density {d:g}", curve=label) for c, d in zip(made, DENSITIES, strict=True)]


for _pattern in PATTERNS:
    curve(_pattern, named=True)(partial(static, _pattern))


@curve("fewer-steps-slightly", named=True)
def fewer_steps_slightly(bench: Bench) -> list[Contender]:
    """Some steps fewer, where that is all that sparse attention gains."""
    return [with_steps(bench, n) for n in fewer(bench.steps, SLIGHTLY)]
