"""`outpace compare --matrix`: every combination of parts as a contender; an axis is one entry of AXES."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from outpace.accel import AdaSpa, GatedTaylor, Solver, accelerate
from outpace.cli.contenders.bricks import calibrated
from outpace.cli.contenders.converted import contender
from outpace.cli.contenders.curve import ours, thresholds
from outpace.cli.contenders.labels import label_of
from outpace.cli.options.method import spell_combination
from outpace.errors import InputError, OutpaceError, UnknownNameError
from outpace.evaluation.attention import block_work
from outpace.evaluation.matrix import Combination, MatrixAxis
from outpace.registry import Registry, suggestion

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.cli.contenders.bench import Bench, Converted
    from outpace.evaluation import Contender, Request

RECALLS = (0.9, 0.8)
"""Of sparse attention: moderate and bold."""

SAVINGS = (0.15, 0.3)
"""Of the blocks, by bricks."""

SHORT = {"min_tokens": 1, "min_gain": 0.0, "block": 16}
"""Settings at which sparse attention also takes short sequences, which by default it leaves alone."""

MATTERS = 0.99
"""The share of a block's work that sparse attention may leave at the bold recall, for the axis to be worth running."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One way to have a part."""

    name: str
    """Short, fit for a file name, unique on its axis."""

    label: str
    methods: tuple[Method, ...] = ()
    converted: Converted | None = None
    """The pipeline that stands in for the plain one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A part that combinations have in one of several ways, or go without."""

    label: str
    choices: Callable[[Bench, Request], list[Choice] | str]
    """`choices(bench, request)`: the ways on this pipeline, found by a trial run on `request` where it takes one; or
    why there are none."""

    named: bool = False
    """True where finding the ways takes long, so that the axis takes part only where it is named."""


AXES: Registry[Axis] = Registry("axis of the matrix")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The matrix of one pipeline, before it is run."""

    axes: list[MatrixAxis]
    combinations: list[Combination]
    contenders: list[Contender]


def forecast_choices(bench: Bench, request: Request) -> list[Choice]:
    """Our gate at a moderate and at a bold threshold."""
    known = thresholds(bench.steps)
    return [
        Choice(name=f"gated-{t:g}", label=f"gated {t:g}", methods=(GatedTaylor(threshold=t),))
        for t in (known[len(known) // 2], known[3 * len(known) // 4])
    ]


def attention_choices(bench: Bench, request: Request) -> list[Choice] | str:
    """Sparse attention with its defaults, or with small blocks where attention is short but has something to leave."""
    for settings in ({}, SHORT):
        trial = bench.under((AdaSpa(recall=min(RECALLS), **settings),), [request], bench.steps)
        attention = (trial[0].trace or {}).get("attention")
        if block_work(attention) <= MATTERS:
            return [
                Choice(name=f"recall-{r:g}", label=f"AdaSpa {r:g}", methods=(AdaSpa(recall=r, **settings),))
                for r in RECALLS
            ]
    if not attention:
        return "no effect: no attention here can be made sparse"
    return (
        f"no effect: attention over {attention['tokens']} tokens is {attention['share']:.0%} of a block's work, and "
        f"{block_work(attention):.1%} of that work is left at recall {min(RECALLS):g}, searches included"
    )


def solver_choices(bench: Bench, request: Request) -> list[Choice]:
    """The second-order multistep solver, at the same steps."""
    return [Choice(name="solver", label=label_of((Solver(),)), methods=(Solver(),))]


def brick_choices(bench: Bench, request: Request) -> list[Choice]:
    """Schedules of bricks that are calibrated first, at a moderate and at a bold saving."""
    known = calibrated(bench)
    return [Choice(name=f"bricks-{s:g}", label=f"bricks -{s:.0%}", methods=(known.saving(s),)) for s in SAVINGS]


def expert_choices(bench: Bench, request: Request) -> list[Choice] | str:
    """The converted pipelines that take part, in the place of the dense one."""
    if not bench.converted:
        return "no converted pipeline takes part (--also FOLDER)"
    return [Choice(name=one.name, label=one.name, converted=one) for one in bench.converted]


AXES.add("forecast", Axis(label="forecast cache", choices=forecast_choices))
AXES.add("attention", Axis(label="sparse attention", choices=attention_choices))
AXES.add("solver", Axis(label="solver", choices=solver_choices))
AXES.add("bricks", Axis(label="bricks left out", choices=brick_choices, named=True))
AXES.add("experts", Axis(label="mixture of experts or blocks", choices=expert_choices))


def plan_matrix(bench: Bench, request: Request, asked: Sequence[str] = ()) -> Plan:
    """Every combination of the axes that this pipeline has a use for.

    Args:
        request: what trial runs are made with.
        asked: as `--axis` spells them, "NAME" or "NAME=CHOICE,CHOICE"; empty takes all axes but those that have to be
            named.

    Raises: UnknownNameError for an axis or a choice; InputError for one given twice, or where no axis is of use.
    """
    wanted = read_axes(asked)
    names = wanted or [name for name, axis in AXES.items() if not axis.named]
    offers = {name: AXES[name].choices(bench, request) for name in names}
    kept = {name: pick(name, offer, wanted.get(name, ())) for name, offer in offers.items() if isinstance(offer, list)}
    axes = [
        MatrixAxis(
            name=name,
            label=AXES[name].label,
            choices={choice.name: choice.label for choice in kept.get(name, ())},
            reason=offer if isinstance(offer, str) else None,
        )
        for name, offer in offers.items()
    ]
    if not any(kept.values()):
        reasons = "; ".join(f"{axis.name}: {axis.reason}" for axis in axes)
        raise InputError(f"--matrix: nothing to combine on this pipeline ({reasons})")
    combinations = [Combination(parts={}, label="plain", contender="plain")]
    contenders = []
    varied = next((name for name, choices in kept.items() if len(choices) > 1), "")
    for chosen in list(product(*((None, *choices) for choices in kept.values())))[1:]:
        parts = {name: choice for name, choice in zip(kept, chosen, strict=True) if choice is not None}
        methods = tuple(method for choice in parts.values() for method in choice.methods)
        converted = next((choice.converted for choice in parts.values() if choice.converted), None)
        combination = Combination(
            parts={name: choice.name for name, choice in parts.items()},
            label=" + ".join(choice.label for choice in parts.values()),
            contender="matrix-" + "+".join(choice.name for choice in parts.values()),
            method=spell_combination(methods),
            refused=refusal(converted.bench if converted else bench, methods),
        )
        combinations.append(combination)
        if combination.refused is None:
            curve = " + ".join(AXES[name].label if name == varied else c.label for name, c in parts.items())
            told = (combination.contender, combination.label, "combination", curve)
            contenders.append(
                contender(converted, bench, *told, *methods) if converted else ours(bench, *told, bench.steps, *methods)
            )
    return Plan(axes=axes, combinations=combinations, contenders=contenders)


def read_axes(asked: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """{axis: choices asked for, empty for all} of `--axis NAME` and `--axis NAME=CHOICE,CHOICE`.

    Raises: UnknownNameError for an axis; InputError for one that is given twice.
    """
    wanted: dict[str, tuple[str, ...]] = {}
    for text in asked:
        name, _, choices = (part.strip() for part in text.partition("="))
        if name not in AXES:
            raise UnknownNameError(f"--axis '{text}': no axis '{name}'{suggestion(name, list(AXES))}")
        if name in wanted:
            raise InputError(f"--axis {name} is given twice; write its choices together: --axis {name}=A,B")
        wanted[name] = tuple(choice.strip() for choice in choices.split(",") if choice.strip())
    return wanted


def pick(axis: str, offered: Sequence[Choice], wanted: Sequence[str]) -> list[Choice]:
    """The choices of an axis that were asked for. Raises: UnknownNameError for one that it does not have."""
    names = [choice.name for choice in offered]
    for name in wanted:
        if name not in names:
            raise UnknownNameError(f"--axis {axis}: no choice '{name}'{suggestion(name, names)}")
    return [choice for choice in offered if not wanted or choice.name in wanted]


def refusal(bench: Bench, methods: Sequence[Method]) -> str | None:
    """Why this pipeline cannot be run under `methods` together; None where it can."""
    if not methods:
        return None
    try:
        accelerate(bench.loaded.pipe, *methods).restore()
    except OutpaceError as error:
        return str(error)
    return None
