"""How long the parts of a denoiser call take, without waiting for the device inside one.

On a GPU a mark is an event in its stream, and the time between two of them is read when the run is over; elsewhere it
is the processor's clock.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import torch

OUTSIDE = "embedding and head"
"""What is left of a call beside its parts."""


class Timed(Protocol):
    """A record that is told how long it took."""

    seconds: float


Mark = Any
"""A place in time: seconds, or an event; None where nothing can be measured (inside the capture of a CUDA graph)."""


class Timings:
    """Of the denoiser calls of a run.

    Args:
        event: makes an event of a GPU's stream that can be timed.
    """

    def __init__(self, event: Callable[[], Any] | None = None) -> None:
        self._event = event or timed_event
        self._spans: list[tuple[str, Mark, Mark]] = []
        self._calls: list[tuple[Timed, Mark, Mark, list[tuple[str, Mark, Mark]]]] = []

    def mark(self, named: dict[str, Any]) -> Mark:
        """Now, where the tensors among the arguments of a call are computed."""
        if not torch.cuda.is_initialized():
            return time.perf_counter()
        device = next((v.device for v in named.values() if isinstance(v, torch.Tensor) and v.is_cuda), None)
        if device is None:
            return time.perf_counter()
        with torch.cuda.device(device):
            if torch.cuda.is_current_stream_capturing():
                return None
            event = self._event()
            event.record()
        return event

    def span(self, part: str, begin: Mark, end: Mark) -> None:
        """`part` of the call under way took from `begin` to `end`."""
        self._spans.append((part, begin, end))

    def call(self, record: Timed, begin: Mark, end: Mark) -> None:
        """The call under way is over."""
        self._calls.append((record, begin, end, self._spans))
        self._spans = []

    def drop(self) -> None:
        """The call under way ended with an exception, or decided nothing."""
        self._spans = []

    def clear(self) -> None:
        """Forget everything."""
        self._spans, self._calls = [], []

    def settle(self, parts: defaultdict[str, float]) -> None:
        """Tell every record how long it took and add up the parts. On a GPU, waits for the last call."""
        calls, self._calls = self._calls, []
        for record, begin, end, spans in calls:
            record.seconds = between(begin, end)
            inside = 0.0
            for part, start, stop in spans:
                taken = between(start, stop)
                parts[part] += taken
                inside += taken
            if spans:
                parts[OUTSIDE] += max(0.0, record.seconds - inside)


def timed_event() -> Any:
    """An event of a GPU's stream that tells when it was reached."""
    return torch.cuda.Event(enable_timing=True)


def between(begin: Mark, end: Mark) -> float:
    """Seconds from one mark to another of the same device; 0 where one is missing."""
    if begin is None or end is None:
        return 0.0
    if isinstance(begin, float):
        return end - begin if isinstance(end, float) else 0.0
    end.synchronize()
    return begin.elapsed_time(end) / 1000.0
