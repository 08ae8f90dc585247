"""The contenders of a comparison, built for one pipeline: references, ours at several settings, and the rivals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from outpace.accel import GatedTaylor, IntervalTaylor, Solver
from outpace.errors import UnknownNameError
from outpace.evaluation import Contender, Request
from outpace.evaluation.peers import PEERS
from outpace.registry import Registry, suggestion

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.cli.answering import Bench

CONVERGED_STEPS = 200
THRESHOLDS = {36: (0.03, 0.045, 0.065, 0.1, 0.15, 0.22, 0.33), 0: (0.07, 0.1, 0.15, 0.22, 0.33, 0.55, 1.0, 2.2, 8.0)}
"""Of the gate, from so many steps on: fewer steps are further apart, and the same speed-ups take higher thresholds."""
PAPER = (0.01, 0.02, 0.04, 0.08, 0.15)
INTERVALS = (2, 3, 4, 5, 6)
FEWER = (1.7, 2.0, 2.5, 3.0, 3.6, 4.5)
"""How many times fewer steps are tried."""

SHORT = 0.56
"""Share of the steps that a gate on a second-order solver is also tried with: 28 of 50."""

Build = Callable[["Bench"], list[Contender]]
CURVES: Registry[Build] = Registry("curve of contenders")
MAIN = ("gated", "gated+solver", "gated+solver-short", "interval", "fewer-steps", "dpm++", "unipc")
"""What `--methods main` runs; `all` adds every other curve and every peer; sparse attention and bricks only where
they are named."""


def build_contenders(
    bench: Bench, methods: str, asked: Sequence[str] = (), converged_steps: int = CONVERGED_STEPS
) -> list[Contender]:
    """The references, then what is asked for one by one, converted pipelines, then what `methods` names.

    Args:
        methods: "all", "main", or curves and contenders separated by commas; "none" adds nothing.
        asked: combinations of methods as `--method` spells them.
        converged_steps: of the converged reference; 0 leaves it out.

    Raises: UnknownNameError for a name that is none of these; ConfigError, ConflictError for a combination.
    """
    from outpace.cli.asked import asked_contenders
    from outpace.cli.brick_contenders import BRICK_CURVES
    from outpace.cli.converted_contenders import converted_contenders
    from outpace.cli.sparse_contenders import SPARSE_CURVES

    built = {name: build(bench) for name, build in all_curves().items()}
    first = [plain(bench), *([converged(bench, converged_steps)] if converged_steps else [])]
    first += asked_contenders(bench, asked, bench.steps)
    first += converted_contenders(bench, bench.converted)
    every = {c.name: c for contenders in built.values() for c in contenders}
    chosen: dict[str, Contender] = {}
    for word in (w.strip() for w in methods.split(",") if w.strip()):
        if word in ("all", "main"):
            named_only = {*SPARSE_CURVES, *BRICK_CURVES}
            names = [name for name in built if name not in named_only] if word == "all" else MAIN
            found = [c for name in names for c in built[name]]
        elif word in built:
            found = built[word]
        elif word in every:
            found = [every[word]]
        elif word in ("plain", "converged", "none"):
            found = []
        else:
            known = ["all", "main", *built]
            raise UnknownNameError(f"--methods: no method '{word}'{suggestion(word, known)}")
        chosen.update({c.name: c for c in found})
    return [*first, *chosen.values()]


def all_curves() -> dict[str, Build]:
    """Every curve by name, the peers at the end."""
    from outpace.cli.brick_contenders import BRICK_CURVES
    from outpace.cli.sparse_contenders import SPARSE_CURVES

    return dict(CURVES.items()) | SPARSE_CURVES | BRICK_CURVES | {name: peer_curve(name) for name in PEERS}


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


def thresholds(steps: int) -> tuple[float, ...]:
    """Those of THRESHOLDS for `steps`."""
    return THRESHOLDS[max(least for least in THRESHOLDS if least <= steps)]


@CURVES.register("gated")
def gated(bench: Bench) -> list[Contender]:
    """Our gate with its defaults, at several thresholds."""
    return [
        ours(bench, f"gated-{t:g}", f"gated {t:g}", "gated", "gated", bench.steps, GatedTaylor(threshold=t))
        for t in thresholds(bench.steps)
    ]


@CURVES.register("gated-budget")
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


@CURVES.register("gated-paper")
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


@CURVES.register("gated+solver")
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


@CURVES.register("gated+solver-short")
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


@CURVES.register("interval")
def interval(bench: Bench) -> list[Contender]:
    return interval_of_order(bench, 1)


@CURVES.register("interval-order2")
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


def fewer(steps: int, ratios: Sequence[float] = FEWER) -> list[int]:
    """Step counts around the compared speed-ups, most first."""
    return sorted({max(1, round(steps / ratio)) for ratio in ratios}, reverse=True)


@CURVES.register("fewer-steps")
def fewer_steps(bench: Bench) -> list[Contender]:
    """The pipeline's own solver with fewer steps: the rival that costs no code."""
    return [with_steps(bench, n) for n in fewer(bench.steps)]


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


@CURVES.register("dpm++")
def dpm(bench: Bench) -> list[Contender]:
    """DPM-Solver++ (2M) with fewer steps."""
    return [
        ours(bench, f"dpm-{n}", f"DPM++, {n} steps", "solver", "DPM++, fewer steps", n, Solver(solver="dpm++"))
        for n in fewer(bench.steps)
    ]


@CURVES.register("unipc")
def unipc(bench: Bench) -> list[Contender]:
    """UniPC of second order with fewer steps."""
    return [
        ours(bench, f"unipc-{n}", f"UniPC, {n} steps", "solver", "UniPC, fewer steps", n, Solver(solver="unipc"))
        for n in fewer(bench.steps)
    ]


def peer_curve(name: str) -> Build:
    """A builder for the contenders of one peer."""

    def build(bench: Bench) -> list[Contender]:
        peer = PEERS[name]
        prepared: dict[str, Any] = {}
        made = []

        def enter(settings: dict[str, Any], requests: list[Request]) -> Any:
            if peer.prepare is not None and not prepared:
                prepared.update(peer.prepare(bench.loaded.pipe, bench.steps, lambda: bench.rehearse(requests[0])))
            return peer.apply(bench.loaded.pipe, **settings, **prepared)

        for settings in peer.settings:
            value = "-".join(f"{v:g}" for v in settings.values())
            words = ", ".join(f"{k} {v:g}" for k, v in settings.items())

            def generate(requests: list[Request], settings: dict[str, Any] = settings) -> Any:
                return bench.within(lambda: enter(settings, requests), requests)

            def timed(requests: list[Request], settings: dict[str, Any] = settings) -> None:
                bench.within(lambda: enter(settings, requests), requests, timed=True)

            made.append(
                Contender(
                    name=f"{name}-{value}",
                    label=f"{peer.label}, {words}",
                    kind="peer",
                    curve=peer.label,
                    steps=bench.steps,
                    settings=dict(settings),
                    batch=peer.batch,
                    generate=generate,
                    timed=timed,
                )
            )
        return made

    return build
