"""Which request a call belongs to, where several share one transformer, and what each of them remembers.

A thread is a request; in one thread a request is named by entering it. What is remembered of the others waits while one
is served, and one is served at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import ConflictError
from .conditioning import Seen, leaves, some_values

MOSTLY = 0.01
"""Latents of which at most this share is the same belong to two requests; guidance may blank a part of them."""

SHARED = (
    "two requests take turns on one transformer and cannot be told apart: let each run in a thread of its own, or "
    "enter one of its own around its calls and steps: mine = handle.request(its_scheduler), then `with mine: ...`"
)


class Remembering(Protocol):
    """Something that holds what belongs to the run under way."""

    def suspend(self) -> dict[str, Any]:
        """Hand over everything of the run, and begin with nothing."""
        ...

    def resume(self, held: dict[str, Any]) -> None:
        """Take back what `suspend` handed over."""
        ...


class Request:
    """One request among several in one thread; enter it around its calls of the transformer."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def __enter__(self) -> Request:
        self._requests.named.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._requests.named.remove(self)


class Requests:
    """Serves the requests of one pipeline in turn.

    Args:
        keepers: what remembers something of a run.
    """

    def __init__(self, keepers: Sequence[Remembering] = ()) -> None:
        self.keepers = list(keepers)
        self._lock = threading.RLock()
        self._local = threading.local()
        self._served: Any = None
        self._depth = 0
        self._waiting: WeakKeyDictionary[Any, list[dict[str, Any]]] = WeakKeyDictionary()

    @property
    def named(self) -> list[Request]:
        """Requests that this thread has entered, the innermost last."""
        found = getattr(self._local, "named", None)
        if found is None:
            found = self._local.named = []
        return found

    @contextmanager
    def turn(self, request: Request | None = None) -> Iterator[None]:
        """Serve a request, by default that of whoever calls; others wait until it is left."""
        with self._lock:
            caller = request or (self.named[-1] if self.named else threading.current_thread())
            before, self._depth = self._served if self._depth else caller, self._depth + 1
            try:
                self._serve(caller)
                yield
            finally:
                self._depth -= 1
                self._serve(before)

    def _serve(self, caller: Any) -> None:
        """Have the keepers hold what is remembered of `caller`."""
        if self._served is not None and self._served is not caller:
            self._waiting[self._served] = [keeper.suspend() for keeper in self.keepers]
            held = self._waiting.pop(caller, None)
            for keeper, own in zip(self.keepers, held or (), strict=held is not None):
                keeper.resume(own)
        self._served = caller

    def forget(self) -> None:
        """Drop what the requests that wait have remembered."""
        with self._lock:
            self._waiting.clear()


class OneRequest:
    """Sees to it that the calls of one step are guidance branches of one request: they are given the same latents."""

    def __init__(self) -> None:
        self._latents: dict[str, list[Seen]] = {}

    def begin_step(self) -> None:
        """The next call is the first of a step."""
        self._latents.clear()

    def check(self, denoiser: str, latents: Any, *, compare: bool) -> None:
        """Note the latents of a call; where one is to `compare` them, they must be those of the step's first.

        Raises: ConflictError where they are those of another request.
        """
        given = [leaf for _, leaf in leaves("", latents) if isinstance(leaf, Tensor)]
        first = self._latents.get(denoiser)
        if first is None:
            self._latents[denoiser] = [Seen.of(tensor) for tensor in given]
        elif compare and others_latents(first, given):
            raise ConflictError(SHARED)


def others_latents(first: Sequence[Seen], given: Sequence[Tensor]) -> bool:
    """Whether latents of the same shape have next to no value in common; another shape is another kind of call."""
    if len(first) != len(given) or not all(seen.alike(tensor) for seen, tensor in zip(first, given, strict=True)):
        return False
    pairs = [(seen, tensor) for seen, tensor in zip(first, given, strict=True) if not seen.unwritten(tensor)]
    if not pairs:
        return False
    same = [(some_values(tensor) == seen.values).float().mean() for seen, tensor in pairs]
    return float(torch.stack(same).amax()) <= MOSTLY
