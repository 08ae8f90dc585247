"""One kind of candidates of `outpace tune`, and all of them by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outpace.registry import Registry

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Request
    from outpace.evaluation.tune import Target

Way = tuple[int, tuple["Method", ...]]
"""A number of steps, and the methods."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a part has to find out on a pipeline what to try there."""

    bench: Bench
    request: Request
    """What trial runs are made with."""

    target: Target | None = None
    """What the tuning is for."""

    runs: float = 0.0
    """Plain runs of one prompt that a calibration may cost."""

    once: Callable[[str, Callable[[], Any]], Any] = lambda name, make: make()
    """`once(name, make)`: the plain data that `make` gives, kept under a name so that a tuning that goes on need not
    make it again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One kind of candidates."""

    ways: Callable[[int], list[Way]]
    """`ways(steps)`: what to try on a pipeline that takes so many steps, the most telling first."""

    matters: Callable[[Trial], bool] | None = None
    """Says by a trial whether this pipeline has any use for the part; None where every pipeline has."""

    found: Callable[[Trial], Callable[[int], list[Way]]] | None = None
    """Finds on the pipeline what to try; None where `ways` knows by itself."""


PARTS: Registry[Part] = Registry("part of the grid")
