"""Curves of contenders, as they are registered, and the contenders that they are built of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outpace.accel import GatedTaylor, Solver
from outpace.cli.contenders.bench import Bench
from outpace.evaluation import Contender, Request
from outpace.registry import Registry

if TYPE_CHECKING:
    from outpace.accel import Method

CONVERGED_STEPS = 200
THRESHOLDS = {36: (0.03, 0.045, 0.065, 0.1, 0.15, 0.22, 0.33), 0: (0.07, 0.1, 0.15, 0.22, 0.33, 0.55, 1.0, 2.2, 8.0)}
"""Of the gate, from so many steps on: fewer steps are further apart, and the same speed-ups take higher thresholds."""
FEWER = (1.7, 2.0, 2.5, 3.0, 3.6, 4.5)
"""How many times fewer steps are tried."""

Build = Callable[[Bench], list[Contender]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Contenders that differ in one setting."""

    build: Build
    """Makes them for one pipeline."""
    named: bool = False
    """True where most pipelines have no use for it, so that `--methods all` leaves it out."""


CURVES: Registry[Curve] = Registry("curve of contenders")


def curve(name: str, *, named: bool = False) -> Callable[[Build], Build]:
    """Register what a builder builds under `name`."""

    def register(build: Build) -> Build:
        CURVES.add(name, Curve(build=build, named=named))
        return build

    return register


def plain(bench: Bench) -> Contender:
    """The pipeline as it is."""
    return Contender(
        name="plain",
        label=f"plain, {bench.steps} steps",
        kind="plain",
        steps=bench.steps,
        generate=lambda requests: bench.answer(requests, bench.steps),
        timed=lambda requests: bench.run(requests, bench.steps),
    )


def converged(bench: Bench, steps: int = CONVERGED_STEPS) -> Contender:
    """Near the exact solution: many steps of a second-order multistep solver."""
    return ours(bench, "converged", f"converged, {steps} steps", "converged", "", steps, Solver())


def ours(
    bench: Bench, name: str, label: str, kind: str, curve: str, steps: int, *methods: Method, shown: bool = False
) -> Contender:
    """A contender that runs the pipeline under methods of this library."""

    def generate(requests: list[Request]) -> Any:
        return bench.under(methods, requests, steps)

    def timed(requests: list[Request]) -> None:
        bench.timed_under(methods, requests, steps)

    described: dict[str, Any] = {"methods": [m.to_dict() for m in methods]}
    for method in methods:
        if isinstance(method, GatedTaylor):
            described |= {"gate": method.gate, "threshold": method.threshold}
    sparse = any(method.place == "attention" for method in methods)
    return Contender(
        name=name,
        label=label,
        kind=kind,
        curve=curve,
        steps=steps,
        settings=described,
        generate=generate,
        timed=timed,
        shown=shown,
        **({"batch": 1} if sparse else {}),  # what attention left out is recorded for a whole batch
    )


def with_steps(bench: Bench, n: int) -> Contender:
    """The plain pipeline with `n` steps."""
    return Contender(
        name=f"steps-{n}",
        label=f"{n} steps",
        kind="fewer-steps",
        curve="fewer steps",
        steps=n,
        generate=lambda requests: bench.answer(requests, n),
        timed=lambda requests: bench.run(requests, n),
    )


def thresholds(steps: int) -> tuple[float, ...]:
    """Those of THRESHOLDS for `steps`."""
    return THRESHOLDS[max(least for least in THRESHOLDS if least <= steps)]


def fewer(steps: int, ratios: Sequence[float] = FEWER) -> list[int]:
    """Step counts around the compared speed-ups, most first."""
    return sorted({max(1, round(steps / ratio)) for ratio in ratios}, reverse=True)
