"""Replace what a denoiser's blocks, or its whole call, give at some steps: what caches written here from papers need.

A rule sees every call of the denoiser with its step and guidance branch. It decides whether the call is computed, is
handed what was computed, and says what to give instead. Everything is undone at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import nn

from ...errors import UnsupportedModelError
from .peer import library_of


@dataclass(kw_only=True, slots=True)
class Call:
    """One call of the denoiser."""

    step: int
    """From 0."""
    branch: int
    """From 0, where guidance makes several calls a step."""
    hidden: torch.Tensor
    """What goes into the first block, or into the denoiser where whole calls are replaced."""
    argument: Callable[[str], Any] = field(default=lambda name: None)
    """What the first block is given under a name; None where it takes nothing of the name."""
    block: Any = None
    """The first block."""


class Rule(Protocol):
    """Decides for one run; its memory of each branch is its own."""

    def computes(self, call: Call) -> bool:
        """Whether the call is computed."""
        ...

    def keep(self, call: Call, made: torch.Tensor) -> None:
        """Learn what was computed."""
        ...

    def replaces(self, call: Call) -> torch.Tensor:
        """What a call that is not computed gives."""
        ...


class Moment:
    """Step and branch of the running call, told by the timesteps: a step's calls come one after the other."""

    def __init__(self) -> None:
        self.step, self.branch, self.timestep = -1, 0, None

    def begin(self, timestep: Any) -> None:
        """A call at `timestep` begins."""
        value = float(torch.as_tensor(timestep).flatten()[0])
        self.branch = self.branch + 1 if value == self.timestep else 0
        self.step += self.branch == 0
        self.timestep = value


def _timestep(denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if "timestep" in kwargs:
        return kwargs["timestep"]
    raise UnsupportedModelError(f"{type(denoiser).__name__} is called without a timestep by name; steps cannot be told")


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`module` runs `forward` instead of its own."""
    had = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if had is not None:
            module.forward = had


@contextmanager
def calls_replaced(pipe: Any, rule: Rule) -> Iterator[Any]:
    """`pipe` with the output of its denoiser replaced where `rule` says so."""
    denoiser, moment = pipe.transformer, Moment()
    compute = denoiser.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        moment.begin(_timestep(denoiser, args, kwargs))
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        call = Call(step=moment.step, branch=moment.branch, hidden=hidden)
        if rule.computes(call):
            made = compute(*args, **kwargs)
            rule.keep(call, made[0])
            return made
        given = rule.replaces(call)
        return (given,) if kwargs.get("return_dict") is False else _as_output(denoiser, given)

    with forward_replaced(denoiser, forward):
        yield pipe


def _as_output(denoiser: nn.Module, sample: torch.Tensor) -> Any:
    module = import_module(type(denoiser).__module__)
    return module.Transformer2DModelOutput(sample=sample)


@contextmanager
def blocks_replaced(pipe: Any, rule: Rule) -> Iterator[Any]:
    """`pipe` with the output of its last block replaced, and no block run, where `rule` says so.

    Raises: UnsupportedModelError for blocks that the library does not describe.
    """
    denoiser, moment, stack = pipe.transformer, Moment(), described_blocks(pipe)
    current: dict[str, Any] = {}
    handle = denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: moment.begin(_timestep(module, args, kwargs)), with_kwargs=True
    )

    def replacing(place: int, block: nn.Module, facts: Any) -> Callable[..., Any]:
        compute = block.forward

        def argument(name: str, args: Any, kwargs: Any) -> Any:
            try:
                return facts._get_parameter_from_args_kwargs(name, args, kwargs)
            except (ValueError, IndexError, KeyError):
                return None

        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = argument(facts.hidden_states_argument_name, args, kwargs)
            if place == 0:
                call = Call(
                    step=moment.step,
                    branch=moment.branch,
                    hidden=hidden,
                    argument=lambda name: argument(name, args, kwargs),
                    block=block,
                )
                current.update(call=call, computed=rule.computes(call))
            last = place == len(stack) - 1
            if current["computed"]:
                made = compute(*args, **kwargs)
                if last:
                    found = made[facts.return_hidden_states_index] if isinstance(made, tuple) else made
                    rule.keep(current["call"], found)
                return made
            if last:
                hidden = rule.replaces(current["call"])
            if facts.return_encoder_hidden_states_index is None:
                return hidden
            given = [hidden, argument(facts.encoder_hidden_states_argument_name, args, kwargs)]
            return tuple(given if facts.return_hidden_states_index == 0 else given[::-1])

        return forward

    with ExitStack() as replaced:
        replaced.callback(handle.remove)
        for place, (block, facts) in enumerate(stack):
            replaced.enter_context(forward_replaced(block, replacing(place, block, facts)))
        yield pipe


def described_blocks(pipe: Any) -> list[tuple[nn.Module, Any]]:
    """The blocks of the denoiser in order, each with what its library knows of what it takes and returns.

    Raises: UnsupportedModelError where there are none.
    """
    registry = import_module(f"{library_of(pipe).__name__}.hooks._helpers").TransformerBlockRegistry
    found: list[tuple[nn.Module, Any]] = []
    for _, child in pipe.transformer.named_children():
        if isinstance(child, nn.ModuleList):
            try:
                found += [(block, registry.get(type(block))) for block in child]
            except ValueError:
                continue
    if not found:
        raise UnsupportedModelError(f"the blocks of {type(pipe.transformer).__name__} are not described by its library")
    return found
