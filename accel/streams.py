"""How the tokens of a block's call are laid out: which streams leave the model, and where the samples of a batch lie.

Whoever decides and forecasts sees every stream with the samples in front, whatever the block is given. Shapes: a
stream is (samples, ...); a row of the batch is a sample, or the guidance row of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .families import Stack
from .families.family import Named

MAIN = "picture"
"""The stream of `Stack.hidden`, where it is one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a stream, or of an argument, without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(tensor: torch.Tensor) -> Kind:
        return Kind(tuple(tensor.shape), tensor.dtype, tensor.device)


def samples_first(tensor: torch.Tensor, stack: Stack, name: str, batch: int) -> torch.Tensor:
    """A view of a block's argument or result `name` with one entry a row of the batch in front."""
    axis = stack.axes.get(name, 0)
    if axis is None:
        return tensor.unsqueeze(0)
    if stack.folded:
        return tensor.unflatten(0, (batch, -1))
    return tensor.movedim(axis, 0)


def as_given(tensor: torch.Tensor, stack: Stack, name: str) -> torch.Tensor:
    """The inverse of `samples_first`."""
    axis = stack.axes.get(name, 0)
    if axis is None:
        return tensor.squeeze(0)
    if stack.folded:
        return tensor.flatten(0, 1)
    return tensor.movedim(0, axis)


def rows_of(hidden: torch.Tensor, stack: Stack, batch: int) -> int:
    """Rows of the batch in a block's tokens.

    Args:
        batch: rows of the transformer's latents; asked where the tokens do not tell.
    """
    axis = stack.axes.get(stack.hidden, 0)
    if axis is None:
        return 1
    return batch if stack.folded else hidden.shape[axis]


def named_result(result: Any, stack: Stack) -> dict[str, Any]:
    """A block's result by the names of the arguments that it replaces."""
    return dict(zip(stack.returns, result if isinstance(result, tuple) else (result,), strict=True))


def streams_in(named: Named, stack: Stack, call: Named, batch: int) -> dict[str, torch.Tensor]:
    """The streams among a block's arguments, or in its named result, by name, the picture's first.

    Args:
        call: the transformer's arguments, which tell where packed streams lie.
    """
    hidden = samples_first(named[stack.hidden], stack, stack.hidden, batch)
    if stack.split is not None:
        return {name: hidden.index_select(1, places) for name, places in stack.split(call).items()}
    found = {MAIN: hidden}
    for name, argument in stack.also.items():
        if named.get(argument) is not None:  # a video may come without sound
            found[name] = samples_first(named[argument], stack, argument, batch)
    return found


def with_streams(result: Any, stack: Stack, call: Named, batch: int, streams: Mapping[str, torch.Tensor]) -> Any:
    """A block's result with its streams replaced."""
    values = named_result(result, stack)
    if stack.split is not None:
        hidden = samples_first(values[stack.hidden], stack, stack.hidden, batch)
        for name, places in stack.split(call).items():
            hidden = hidden.index_copy(1, places, streams[name].to(hidden.dtype))
        values[stack.hidden] = as_given(hidden, stack, stack.hidden)
    else:
        for name, tensor in streams.items():
            argument = stack.hidden if name == MAIN else stack.also[name]
            values[argument] = as_given(tensor, stack, argument)
    return tuple(values[name] for name in stack.returns) if isinstance(result, tuple) else values[stack.returns[0]]


def several(stack: Stack) -> bool:
    """True where more than one stream leaves the model."""
    return bool(stack.also) or stack.split is not None


def plain_batch(stacks: Sequence[Stack]) -> bool:
    """True where every block carries its batch in front, one row a sample."""
    return not any(stack.folded or stack.axes for stack in stacks)
