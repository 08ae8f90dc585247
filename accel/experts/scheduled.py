"""Blocks that some noise levels do without: known when a step begins, so nothing is routed and nothing is sorted.

The block's class is swapped for a subclass of the same name, as in a mixture of blocks: weights keep their names.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..denoiser import Rows, echo
from ..families import Stack, find_family
from .noise_levels import NoiseLevels
from .pruned import check_places
from .sites import find_sites


class StandIn(nn.Module):
    """What a noise level does in the place of the blocks that it leaves out: an affine function of normalised tokens.

    It adds nothing before it is fitted. A stream that is not there, or of another width, is handed on as it is.

    Args:
        stack: that the blocks are in; each stream that they return has a matrix of its own.
        width: of the tokens, D.
    """

    def __init__(self, stack: Stack, width: int) -> None:
        super().__init__()
        self.streams = nn.ModuleDict({name: nn.Linear(width, width) for name in stack.returns})
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, stack: Stack, named: dict[str, Any]) -> Any:
        """What the last of the blocks would return, from the arguments (B, N, D) of the first."""
        made = dict(named)
        for name, linear in self.streams.items():
            x = named.get(name)
            if isinstance(x, Tensor) and x.shape[-1] == linear.in_features:
                made[name] = x + linear(normalised(x))
        return echo(made, stack)


class ScheduledBlock:
    """At which noise levels a block runs.

    Args:
        noise: knows the level of the call under way.
        place: of the block, counted over all stacks.
        stack: that it is in.
        block: it; it belongs to the transformer.
        without: levels that do without it.
    """

    def __init__(self, noise: NoiseLevels, place: int, stack: Stack, block: nn.Module, without: frozenset[int]) -> None:
        self.noise, self.place, self.stack, self.without = noise, place, stack, without
        self.names = list(inspect.signature(block.forward).parameters)
        self.all = False
        """Every level runs it, as the dense model does."""

    def levels(self, samples: int) -> list[int | None]:
        """The level of every sample of the call under way; None where the block runs."""
        told = self.noise.levels or ()
        each, left = divmod(samples, max(1, len(told)))
        if self.all or not told or left:  # several samples in a row cannot be taken apart, so all blocks run
            return [None] * samples
        return [level if level in self.without else None for level in told for _ in range(each)]

    @functools.partial(torch.compiler.disable, recursive=False)  # which blocks run would be compiled anew for each
    def run(self, block: Any, proceed: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The block for the samples at levels that have it, and its stand-ins for the others."""
        named = {**dict(zip(self.names, args, strict=False)), **kwargs}
        hidden: Tensor = named[self.stack.hidden]
        levels = self.levels(len(hidden))
        found = sorted(set(levels), key=lambda level: -1 if level is None else level)
        if found == [None]:
            return proceed(*args, **kwargs)
        if len(found) == 1:
            return self._without(block, str(found[0]), **named)
        result = None
        for level in found:
            rows = [row for row, one in enumerate(levels) if one == level]
            how = proceed if level is None else functools.partial(self._without, block, str(level))
            result = Rows(rows, len(hidden), hidden.device).run(how, named, self.stack)
            outputs = result if isinstance(result, tuple) else (result,)
            named |= dict(zip(self.stack.returns, outputs, strict=True))
        return result

    def _without(self, block: Any, level: str, **named: Any) -> Any:
        return block.stand_ins[level](self.stack, named) if level in block.stand_ins else echo(named, self.stack)


def schedule_blocks(
    transformer: nn.Module, left_out: Sequence[Sequence[int]], noise: NoiseLevels, *, stand_ins: bool = False
) -> None:
    """Let every noise level leave blocks out, in place.

    Args:
        left_out: for every level the places of blocks, counted over all stacks from 0.
        stand_ins: the last of consecutive ones has one for them all, for each level.

    Raises: ConfigError for a place that there is not, and for the last block: forecasts go by the first and the last.
    """
    blocks = find_family(transformer).blocks(transformer)
    places = sorted({place for level in left_out for place in level})
    check_places(places, len(blocks), "left out")
    width = find_sites(transformer)[0].read().width
    for place in places:
        stack, block = blocks[place]
        without = frozenset(level for level, gone in enumerate(left_out) if place in gone)
        ends = [level for level in sorted(without) if place in run_ends(left_out[level], [s for s, _ in blocks])]
        like = next(block.parameters())
        with torch.device(like.device):
            made = nn.ModuleDict({str(level): StandIn(stack, width) for level in ends if stand_ins})
        block.stand_ins = made.to(like.dtype).train(block.training)
        vars(block)["scheduled"] = ScheduledBlock(noise, place, stack, block, without)
        block.__class__ = _scheduled(type(block))


def run_ends(places: Sequence[int], stacks: Sequence[Stack]) -> list[int]:
    """The last of every run of consecutive places within one stack."""
    return [place for place in places if place + 1 not in places or stacks[place + 1] is not stacks[place]]


def find_scheduled(transformer: nn.Module) -> list[tuple[nn.Module, ScheduledBlock]]:
    """The blocks that some noise levels do without, in execution order."""
    found = [(module, vars(module).get("scheduled")) for module in transformer.modules()]
    return [(module, scheduled) for module, scheduled in found if scheduled is not None]


def normalised(x: Tensor) -> Tensor:
    """Tokens as a stand-in sees them."""
    return functional.layer_norm(x, x.shape[-1:])


@functools.cache
def _scheduled(cls: type[nn.Module]) -> type[nn.Module]:
    """`cls` with a forward that asks for the noise level first."""

    @functools.wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.scheduled.run(self, functools.partial(cls.forward, self), args, kwargs)

    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__, "__doc__": cls.__doc__})
