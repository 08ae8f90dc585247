"""The names of guidance branches, from the guider of a modular pipeline.

A guider of diffusers (CFG, APG, skip-layer guidance ...) says for every step which predictions it wants, each with a
name, and prepares the model before each call. It is listened to on the instance: a branch keeps its name where guidance
starts, stops or changes its number of branches inside a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .tap import Tap

INPUTS = ("prepare_inputs", "prepare_inputs_from_block_state")
"""Methods that return the inputs of a step, one for each branch."""


class GuiderReader:
    """Knows which prediction of a pipeline's guider is being made.

    Args:
        source: tells the guider of the moment, which a user may replace at any time; None where there is none.
    """

    def __init__(self, source: Callable[[], Any]) -> None:
        self._source = source
        self._guider: Any = None
        self._taps: list[Tap] = []
        self._names: list[str] = []
        self._prepared, self._inside = 0, False
        self.look()

    @property
    def name(self) -> str | None:
        """The name of the prediction under way; None outside of one."""
        told = self._inside and 0 < self._prepared <= len(self._names)
        return self._names[self._prepared - 1] if told else None

    def look(self) -> None:
        """Follow the guider that the pipeline has now."""
        guider = self._source()
        if guider is self._guider:
            return
        self.remove()
        if all(
            callable(getattr(guider, name, None)) for name in (*INPUTS, "prepare_models", "cleanup_models", "set_state")
        ):
            self._guider = guider
            self._taps = [Tap(guider, name, self._inputs) for name in INPUTS]
            self._taps.append(Tap(guider, "prepare_models", self._model))
            self._taps.append(Tap(guider, "cleanup_models", self._over))
            self._taps.append(Tap(guider, "set_state", self._begin))

    def _begin(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._names, self._prepared, self._inside = [], 0, False
        return inner(*args, **kwargs)

    def _inputs(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        batches = inner(*args, **kwargs)
        key = getattr(self._guider, "_identifier_key", "")
        names = [getattr(batch, key, None) for batch in batches] if key else []
        told = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
        self._names, self._prepared = [str(name) for name in names] if told else [], 0
        return batches

    def _model(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._prepared, self._inside = self._prepared + 1, True
        return inner(*args, **kwargs)

    def _over(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._inside = False
        return inner(*args, **kwargs)

    def remove(self) -> None:
        """Leave the guider as it was found."""
        for tap in self._taps:
            tap.remove()
        self._taps, self._guider, self._names, self._prepared, self._inside = [], None, [], 0, False
