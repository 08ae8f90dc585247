"""Static patterns: which blocks of keys a block of queries keeps, told by where both lie in the video alone.

Every pattern is a distance between blocks, or several of which each head takes the one that fits it: the nearest are
kept, as many as the density says, so that all patterns cost the same and differ in what they keep only.

Shapes: R blocks of queries, C blocks of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the blocks of an attention lie, in tokens along time, height and width: the middle of each."""

    queries: Tensor
    """(R, 3)."""
    keys: Tensor
    """(C, 3)."""
    grid: tuple[int, int, int]

    @property
    def apart(self) -> Tensor:
        """How far apart they are along every axis, (R, C, 3)."""
        return (self.queries[:, None] - self.keys[None, :]).abs()


Distance = Callable[[Places], "Tensor"]
"""(R, C): the smaller, the sooner a block is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A way to lay down what is kept."""

    label: str
    distances: tuple[Distance, ...]
    """Of several, every head takes the one that keeps most of its attention, measured on some of its queries."""


PATTERNS: Registry[Pattern] = Registry("static pattern of attention")
