"""Is a family's data right? A check that forecasts and compares, so that wrong data cannot pass it.

Threshold 0 alone proves little: a stream that is echoed unprocessed, a batch that lies along another axis or an
argument that is cut down by mistake only show where something is skipped. So the same inputs are given again and the
answer has to be the same again, with all samples forecast and with some.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from ..errors import OutpaceError
from .families import Family, Stack, find_family
from .families.family import modules_at
from .forecast import Forecaster, History
from .handle import Acceleration
from .methods import Method
from .methods.gated_taylor import GatedTaylor
from .policy import Policy

if TYPE_CHECKING:
    from .forecast.errors import Measured
    from .moment import Moment
    from .part import Part, Shared
    from .specimens import Specimen

Arguments = tuple[Sequence[Any], dict[str, Any]]
Inputs = Callable[[Sequence[int]], Arguments]
"""Arguments of the transformer's call for some samples, named by their seeds: (args, kwargs). A sample's own must not
depend on the others'."""

SEEDS = (0, 1, 2)
STEPS = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried."""

    tried: str
    passed: bool | None
    """None where the question does not arise."""
    detail: str = ""

    def line(self) -> str:
        """For a person."""
        mark = {True: "ok     ", False: "WRONG  ", None: "-      "}[self.passed]
        return mark + self.tried + (f": {self.detail}" if self.detail else "")


def check_family(transformer: nn.Module, inputs: Inputs, *, rounding: float = 1e-5) -> list[Finding]:
    """Hold the family that covers `transformer` to what the transformer does.

    Args:
        transformer: small and of random weights is enough; gates that start at zero have to be open.
        inputs: makes the arguments of a call, see `Inputs`.
        rounding: how far results that should be equal may lie apart, relative to the largest value.

    Returns: what was tried, in order; see `Finding.passed`.

    Raises: UnsupportedModelError where no family covers it.

    >>> findings = check_family(transformer, inputs)  # doctest: +SKIP
    >>> assert all(found.passed is not False for found in findings), findings  # doctest: +SKIP
    """
    return list(findings_of(transformer, inputs, rounding))


def check_specimen(specimen: Specimen) -> list[Finding]:
    """Hold a family to a tiny model of one of its classes, with the installed version of the library it comes from."""
    model = specimen.build()
    return check_family(model, lambda seeds: specimen.inputs(seeds, model), rounding=specimen.rounding)


@torch.no_grad()
def findings_of(transformer: nn.Module, inputs: Inputs, rounding: float) -> Iterator[Finding]:
    """What is tried, one after the other; a step that raises is a finding, too."""
    family = find_family(transformer)
    family.blocks(transformer)

    def call(seeds: Sequence[int] = SEEDS) -> list[torch.Tensor]:
        args, kwargs = inputs(seeds)
        return leaves(transformer(*args, **kwargs))

    plain = call()
    lone = one_sample_a_call(family)
    before = attributes(transformer)  # some keep tables that their first call makes
    largest = max(1.0, *(float(leaf.abs().max()) for leaf in plain))

    def same(made: Sequence[torch.Tensor], where: str) -> str:
        """How far `made` is from `plain`, or an empty string."""
        shapes = [tuple(leaf.shape) for leaf in made], [tuple(leaf.shape) for leaf in plain]
        if shapes[0] != shapes[1]:
            return f"{where}: shapes {shapes[0]}, plain {shapes[1]}"
        for place, (a, b) in enumerate(zip(made, plain, strict=True)):
            far = float((a - b).abs().max()) / largest
            if not far <= rounding:
                return f"{where}: result {place} is {far:.2g} off, relative to the largest value"
        return ""

    def tried(what: str, trial: Callable[[], str | None]) -> Finding:
        try:
            wrong = trial()
        except (OutpaceError, RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError) as error:
            return Finding(what, False, " ".join(f"{type(error).__name__}: {error}".split())[:300])
        return Finding(what, None if wrong is None else not wrong, wrong or "")

    def zero() -> str:
        with Acceleration(SimpleNamespace(transformer=transformer), [GatedTaylor(threshold=0.0)]):
            made = call()
        equal = all(torch.equal(a, b) for a, b in zip(made, plain, strict=True))
        return "" if equal else "the result differs from the plain one"

    def skipped() -> str:
        if family.for_blocks and not modules_at(transformer, family.for_blocks):
            return "for_blocks names none of the model's modules"
        return forced((), all_forecast=True)

    def mixed() -> str | None:
        if lone or (family.cache is not None and inputs(SEEDS)[1].get(family.cache) is not None):
            return None  # one sample a call, or samples that are decided together
        return forced((0,)) or forced((1, 2)) or forced((0, 2))

    def forced(computed: Sequence[int], all_forecast: bool = False) -> str:
        told = Told(computed=None if all_forecast else tuple(s in computed for s in SEEDS))
        scheduler = Steps()
        with Acceleration(SimpleNamespace(transformer=transformer, scheduler=scheduler), [told]) as run:
            scheduler.set_timesteps(STEPS)
            for step in range(STEPS):
                made = call()
                scheduler.step()
                if wrong := same(made, f"step {step}, computed: {list(computed) if step else 'all'}"):
                    return wrong
        calls = [c for c in run.trace.calls if c.step > 0]
        if not calls or any(all(c.computed) for c in calls):
            return "nothing was forecast: the last block was not reached when everything was computed"
        if not all_forecast and any(len(c.computed) != len(SEEDS) for c in calls):
            return f"a batch of {len(SEEDS)} was taken for {len(calls[0].computed)} samples"
        return ""

    def alone() -> str | None:
        if lone:
            return None
        parts = [call([seed]) for seed in SEEDS]
        if len(parts[0]) == len(plain):
            made = [torch.cat(leaf) for leaf in zip(*parts, strict=True)]
        else:  # a list with one result a sample
            made = [leaf for part in parts for leaf in part]
        return same(made, "three calls")

    def unchanging() -> str | None:
        return None if not family.constant else constant(transformer, inputs)

    def restored() -> str:
        if attributes(transformer) != before:
            return "an attribute is left behind"
        return "" if all(torch.equal(a, b) for a, b in zip(call(), plain, strict=True)) else "the result has changed"

    yield tried("threshold 0 gives the plain result bit for bit", zero)
    yield tried("the same inputs again, all forecast, give the same result", skipped)
    yield tried("latents and time have the names that the family says", lambda: named_right(transformer, inputs))
    yield tried("arguments of blocks carry the batch where the family says", lambda: arguments(transformer, inputs))
    yield tried("the same inputs again, some samples forecast, give the same result", mixed)
    yield tried("three samples together are the three alone", alone)
    yield tried("what the family names constant is given the same at another step", unchanging)
    yield tried("nothing is left behind", restored)


def named_right(transformer: nn.Module, inputs: Inputs) -> str:
    """Whether `latents` and `time` name arguments that are given, and the former carries the batch."""
    family, site = find_family(transformer), inspect.signature(transformer.forward)
    calls = [site.bind(*args, **kwargs).arguments for args, kwargs in (inputs(SEEDS[:count]) for count in (2, 3))]
    named = {"latents": family.latents, "time": family.time}
    wrong = [f"{field} = '{name}' is not given" for field, name in named.items() if name and name not in calls[0]]
    if family.latents in calls[0] and not one_sample_a_call(family):
        rows = [len(call[family.latents]) for call in calls]
        wrong += [] if rows == [2, 3] else [f"'{family.latents}' has {rows[0]} rows for 2 samples and {rows[1]} for 3"]
    return "; ".join(wrong)


def arguments(transformer: nn.Module, inputs: Inputs) -> str:
    """What is wrong with `shared`, `axes`, `trailing` and `folded`: seen by calling with two and with three samples."""
    family = find_family(transformer)
    if one_sample_a_call(family):
        return ""
    seen = [sizes(transformer, inputs, SEEDS[:count]) for count in (2, 3)]
    wrong: list[str] = []
    for (stack, name, two), (_, _, three) in zip(*seen, strict=False):
        follows = (two, three) == (2, 3)
        folds = stack.folded and two * 3 == three * 2
        spare = name in stack.trailing and (two, three) == (3, 4)
        if name in stack.shared:
            if follows:
                wrong.append(f"'{name}' of '{stack.path}' is named in shared and has one row a sample")
        elif not (follows or folds or spare) and two > 1:
            how = (
                "is the same for all samples: name it in shared"
                if two == three
                else "has one row more than samples: name it in trailing"
                if (two, three) == (3, 4)
                else f"has {two} rows for 2 samples and {three} for 3: see folded and axes"
            )
            wrong.append(f"'{name}' of '{stack.path}' {how}")
    return "; ".join(dict.fromkeys(wrong))


def constant(transformer: nn.Module, inputs: Inputs) -> str:
    """Which modules of `Family.constant` are given something else at other latents and times, seen by calling so, and
    whose results the model writes to, so that they cannot be handed out again."""
    family = find_family(transformer)
    site = inspect.signature(transformer.forward)
    given: list[dict[str, list[torch.Tensor]]] = []
    made: list[tuple[str, torch.Tensor, int]] = []
    for factor in (1.0, 0.75):
        args, kwargs = inputs(SEEDS)
        named = site.bind(*args, **kwargs).arguments
        moved = {name: scaled(named[name], factor) for name in family.moves if name in named and name != family.cache}
        found: dict[str, list[torch.Tensor]] = {}
        watched = modules_at(transformer, family.constant)
        handles = [
            module.register_forward_hook(
                lambda _m, _a, output, path=path: made.extend((path, leaf, leaf._version) for leaf in leaves(output))
            )
            for path, module in watched.items()
        ] + [
            module.register_forward_pre_hook(
                lambda _, args, kwargs, path=path, found=found: found.setdefault(path, []).extend(
                    leaf.clone() for leaf in leaves([list(args), dict(kwargs)])
                ),
                with_kwargs=True,
            )
            for path, module in watched.items()
        ]
        try:
            transformer(**{**named, **moved})
        finally:
            for handle in handles:
                handle.remove()
        given.append(found)
    one, other = given
    if not one:
        return "none of the modules that it names was called"
    wrong = [
        path
        for path, before in one.items()
        if len(before) != len(other.get(path, ())) or not all(map(torch.equal, before, other[path]))
    ]
    written = list(dict.fromkeys(path for path, leaf, version in made if leaf._version != version))
    said = [f"others are given to {', '.join(wrong)}"] if wrong else []
    return "; ".join([*said, *([f"the model writes to what {', '.join(written)} gave"] if written else [])])


def scaled(value: Any, factor: float) -> Any:
    """Latents or times that are others, in whatever containers they come."""
    if isinstance(value, torch.Tensor):
        return value * factor if value.is_floating_point() else (value * factor).to(value.dtype)
    if isinstance(value, (list, tuple)):
        return type(value)(scaled(item, factor) for item in value)
    return value


def one_sample_a_call(family: Family) -> bool:
    """True where the blocks' tokens carry no batch."""
    return any(axis is None for stack in family.stacks for axis in stack.axes.values())


def sizes(transformer: nn.Module, inputs: Inputs, seeds: Sequence[int]) -> list[tuple[Stack, str, int]]:
    """Stack, argument and length along the batch's axis of every tensor that the blocks are given."""
    found: list[tuple[Stack, str, int]] = []

    def note(stack: Stack, name: str, value: Any) -> None:
        axis = stack.axes.get(name, 0)
        if isinstance(value, torch.Tensor) and axis is not None and value.ndim > axis:
            found.append((stack, name, value.shape[axis]))
        elif isinstance(value, dict):
            for item in value.values():
                note(stack, name, item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                note(stack, name, item)

    family = find_family(transformer)
    handles = []
    for stack, block in family.blocks(transformer):
        names = block.forward.__code__.co_varnames[1:] if hasattr(block.forward, "__code__") else ()

        def hook(_: nn.Module, args: Any, kwargs: dict[str, Any], s: Stack = stack, n: Any = names) -> None:
            for name, value in {**dict(zip(n, args, strict=False)), **kwargs}.items():
                note(s, name, value)

        handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        args, kwargs = inputs(seeds)
        transformer(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def leaves(output: Any) -> list[torch.Tensor]:
    """The tensors in a transformer's result, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return [leaf for item in output for leaf in leaves(item)] if isinstance(output, (list, tuple)) else []


def attributes(transformer: nn.Module) -> dict[str, Any]:
    """Every attribute of every module, with the names in those that are dictionaries."""
    return {
        f"{owner}.{name}": list(value) if isinstance(value, dict) else type(value).__name__
        for owner, module in transformer.named_modules()
        for name, value in module.__dict__.items()
    }


class Steps:
    """A scheduler that only counts, at timesteps that no denoiser is told, so that any inputs may be given again."""

    def __init__(self) -> None:
        self.config = {"use_flow_sigmas": True}
        self.timesteps = torch.empty(0)
        self.sigmas = torch.empty(0)
        self.num_inference_steps: int | None = None

    def set_timesteps(self, steps: int) -> None:
        """Begin a run."""
        self.num_inference_steps = steps
        self.sigmas = torch.linspace(1.0, 0.0, steps + 2)
        self.timesteps = 1e15 * self.sigmas[:-1]

    def step(self) -> None:
        """One step is over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told(Method):
    """Forecasts and computes what it is told from the second step on, by reuse of what was computed last.

    Args:
        computed: which samples are computed; None forecasts all.
    """

    name: ClassVar[str] = "told"
    place: ClassVar[str] = "forecast"
    computed: tuple[bool, ...] | None = None

    def part(self, shared: Shared) -> Part:
        told = self.computed or (False,)
        return Forecaster([lambda done=done: ToldPolicy(done) for done in told], shared, False)  # pyright: ignore


class ToldPolicy(Policy):
    """The decisions of Told for one sample (see policy.Policy)."""

    probes, measures, coordinate, degree = False, False, "step", 0

    def __init__(self, computed: bool) -> None:
        self.computed = computed

    def history(self) -> History:
        return History(0, 0)

    def forced(self, moment: Moment, history: History) -> str | None:
        return "told" if self.computed or moment.step == 0 else None

    def accept(self, moment: Moment, history: History, error: float | None) -> str | None:
        return None

    def observe(self, measured: Measured) -> None:
        """Nothing is learned."""
