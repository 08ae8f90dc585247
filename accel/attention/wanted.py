"""What the engine asks of the settings that drive it; `AdaSpa` explains each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..densities import Densities
from .redirect import Attended


class Target(Protocol):
    """What a selection has to reach."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> float: ...


class Wanted(Protocol):
    """Settings of block-sparse attention."""

    @property
    def target(self) -> Target: ...
    @property
    def exact(self) -> bool: ...
    @property
    def ranges(self) -> Sequence[Densities]: ...
    @property
    def pattern(self) -> str: ...
    @property
    def per(self) -> str: ...
    @property
    def head_adaptive(self) -> bool: ...
    @property
    def least(self) -> float: ...
    @property
    def most(self) -> float: ...
    @property
    def searches(self) -> tuple[float, ...]: ...
    @property
    def fresh(self) -> bool: ...
    @property
    def slack(self) -> float: ...
    @property
    def drift(self) -> float: ...
    @property
    def most_searches(self) -> int: ...
    @property
    def blocks(self) -> tuple[int, int]: ...
    @property
    def tile(self) -> bool: ...
    @property
    def min_tokens(self) -> int: ...
    @property
    def min_gain(self) -> float: ...
    @property
    def backend(self) -> str: ...


def unfit(attended: Attended, settings: Wanted) -> str:
    """Why an attention cannot be made sparse as the settings want it, or an empty string."""
    q = attended.query
    if q.ndim != 4:
        return f"queries of {q.ndim} dimensions do not tell heads from batch"
    if q.shape[2] < settings.min_tokens:
        return f"{q.shape[2]} tokens are fewer than min_tokens={settings.min_tokens}"
    if attended.is_causal or attended.dropout_p > 0:
        return "it is causal or drops out"
    heads = len(settings.ranges[0].layers[0]) if settings.ranges else q.shape[1]
    if heads != q.shape[1]:
        return f"there are {q.shape[1]} heads and the schedule of densities is for {heads}"
    return ""
