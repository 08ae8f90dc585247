"""Another scheduler in the place of a pipeline's own, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConflictError
from .part import Part, Shared


class SchedulerSwap(Part):
    """Swaps a pipeline's scheduler.

    Args:
        make: the new scheduler, from the pipeline's. Raises ConflictError where there is none for it.
    """

    place = "solver"
    holds_denoisers = False

    def __init__(self, make: Callable[[Any], Any], shared: Shared) -> None:
        super().__init__(shared)
        self._make = make
        self._target: Any = None
        self._own: Any = None
        self._new: Any = None

    def hold(self, target: Any) -> None:
        own = getattr(target, "scheduler", None)
        if own is None:
            raise ConflictError(
                "Solver changes a pipeline's scheduler; give accelerate the pipeline, not the transformer"
            )
        new = self._make(own)
        self._target, self._own, self._new = target, own, new
        target.scheduler = new

    def detach(self) -> None:
        if self._new is not None and self._target.scheduler is self._new:
            self._target.scheduler = self._own
        self._target = self._own = self._new = None
