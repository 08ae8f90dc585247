"""One paper of the companion list as data: what is built, how large, what holds exactly, what was left out.

A model is registered in its own file (`models/gam.py`), its exactness checks in the file of the same name in
`models/checks`, the trial of its paper's claim in the file of the same name in `models/trials`. The command line, the
tests and the docs are printed from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..registry import Registry

HOME = __name__.rpartition(".")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A configuration that the paper names."""

    config: Any
    """What `Companion.build` takes."""
    parameters: int
    """How many it must have."""
    said: str
    """What the paper says it has, in its own digits ("22.6M"); "not said" where it does not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Companion:
    """A paper's card, and the way to its model."""

    title: str
    """Of the paper."""
    source: str
    """Authors, year, arXiv number."""
    summary: str
    """What it is, in one line."""
    build: Callable[[Any], nn.Module] | None = None
    """A module with fresh weights from a configuration; None where the paper is a way of looking at models."""
    config: type[Any] | None = None
    """What `build` takes; None where nothing is built."""
    sizes: Mapping[str, Size] = field(default_factory=dict)
    """The paper's configurations by name."""
    toy: Any = None
    """The same kind of model as small as it goes: the size "toy", to try things on."""
    example: Callable[[Any], tuple[Tensor, ...]] | None = None
    """What a forward pass takes for a configuration: a small batch of numbers from a rule, always the same."""
    use: str = ""
    """How to use a method that builds no model, in one line."""
    done: tuple[str, ...]
    """What of the paper is implemented."""
    left_out: tuple[str, ...] = ()
    """What is not."""
    claim: str
    """What the paper says of its method, in one sentence."""
    limits: tuple[str, ...] = ()
    """What a user should know before relying on it."""


MODELS: Registry[Companion] = Registry("model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Something that holds exactly, up to rounding."""

    about: str
    """What holds, as a sentence."""
    measure: Callable[[], float]
    """How far it is from holding."""
    at_most: float
    """How far it may be: rounding, or 0."""

    def run(self) -> tuple[float, bool]:
        """(how far, whether that is near enough); a NaN is not."""
        error = float(self.measure())
        return error, error <= self.at_most


_CHECKS: dict[str, list[Check]] = {}


def check(model: str, about: str, *, at_most: float = 0.0) -> Callable[[Callable[[], float]], Callable[[], float]]:
    """A decorator: the function it decorates says how far `about` is from holding for `model`."""

    def decorate(measure: Callable[[], float]) -> Callable[[], float]:
        _CHECKS.setdefault(model, []).append(Check(about=about, measure=measure, at_most=at_most))
        return measure

    return decorate


def checks_of(name: str) -> list[Check]:
    """Every check of a model: the count of parameters of each named size, its own, and what is remembered of it.

    Raises: UnknownNameError: no model has this name.
    """
    model, remembering = MODELS[name], import_module(f"{HOME}.remember")
    counts = [
        Check(
            about=f"'{size_name}' has {size.parameters:,} parameters (the paper: {size.said})",
            measure=lambda size_name=size_name, size=size: abs(remembering.built(name, size_name)[0] - size.parameters),
            at_most=0,
        )
        for size_name, size in model.sizes.items()
    ]
    if name not in _CHECKS:
        import_module(f"{HOME}.checks.{name}")
    return counts + _CHECKS[name] + remembering.checks_of(name)


def count_parameters(model: Companion, config: Any) -> int:
    """How many numbers it learns, from the configuration alone: no memory is taken for them.

    Raises: ConfigError: the paper builds no model.
    """
    if model.build is None:
        raise ConfigError(f"'{model.title}' is a method, not a model: it has no parameters to count")
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model.build(config).parameters())


def trial_of(name: str) -> Any:
    """The trial of the claim of a model's paper, or None where there is none.

    Raises: UnknownNameError: no model has this name.
    """
    _ = MODELS[name]
    module = f"{HOME}.trials.{name}"
    return import_module(module).TRIAL if find_spec(module) is not None else None


def check_sizes(config: Any, *, zero: tuple[str, ...] = (), signed: tuple[str, ...] = ()) -> None:
    """That the numbers of a configuration can be, those in tuples too: whole ones at least 1, others at least 0.

    Args:
        zero: fields whose whole numbers may be 0.
        signed: fields that any finite number may be in.

    Raises: ConfigError: one that cannot be, by the name of its field.
    """
    for entry in fields(config):
        value = getattr(config, entry.name)
        least = 0 if "float" in str(entry.type) or entry.name in zero else 1
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            if not math.isfinite(number) or (number < least and entry.name not in signed):
                told = "finite" if entry.name in signed else f"at least {least}"
                raise ConfigError(f"{entry.name} of {type(config).__name__} must be {told}, not {value}")


def check_divides(what: str, whole: int, parts: int) -> None:
    """Raises: ConfigError where `whole` cannot be split into `parts` evenly, or either is not positive."""
    if whole < 1 or parts < 1 or whole % parts:
        raise ConfigError(f"{what}: {whole} cannot be split into {parts} parts evenly; choose a multiple")
