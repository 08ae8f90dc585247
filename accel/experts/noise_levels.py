"""At which noise level the samples of a call are, told by the timesteps that the transformer is told."""

from __future__ import annotations

import functools
import inspect
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..families import find_family


class NoiseLevels:
    """At which noise level each sample of the call under way is; the layers of one transformer share it.

    Args:
        borders: timesteps that part the levels, as the transformer is told them, ascending; a border belongs to the
            level above it. Without any there is one level.
    """

    def __init__(self, borders: Sequence[float]) -> None:
        self.borders = tuple(borders)
        self.levels: tuple[int, ...] | None = None
        """Of the samples; one where all are alike. None: nothing was called yet."""
        self.untold = 0
        """The level of a call whose timesteps have no values, as on the meta device."""

    def note(self, transformer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Read the timesteps of a call; a hook that runs before `transformer`."""
        named = {**dict(zip(_parameters_of(type(transformer)), args, strict=False)), **kwargs} if args else kwargs
        times = timesteps_of(named.get(find_family(transformer).time)) if self.borders else None
        found = (self.untold,) if times is None else tuple(bisect_right(self.borders, time) for time in times)
        self.levels = found[:1] if len(set(found)) == 1 else found


def timesteps_of(value: Any) -> list[float] | None:
    """The timestep of every sample of a call, a mean where tokens or frames have their own; None where none has values.

    Reading them waits for the device, once a call.

    Args:
        value: what the call was told: a number, a tensor with the samples in front, or None.
    """
    if isinstance(value, (int, float)):
        return [float(value)]
    if not isinstance(value, Tensor) or value.is_meta or not value.numel():
        return None
    return value.detach().float().reshape(len(value) if value.ndim else 1, -1).mean(1).tolist()


@functools.cache
def _parameters_of(cls: type[nn.Module]) -> tuple[str, ...]:
    return tuple(inspect.signature(cls.forward).parameters)[1:]
