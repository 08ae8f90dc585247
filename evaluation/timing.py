"""Paired timing: the plain pipeline and a contender take turns, and the median of their ratios is reported.

A machine that slows down half-way slows both members of a pair, so ratios survive what means of separate runs do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import MeasurementError
from .contender import Request
from .intervals import Interval, median_quartiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """How long one call took."""

    wall: float
    """Seconds on the wall; on CUDA between two events on the device."""

    cpu: float
    """Seconds of processor time of this process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The plain pipeline and the contender, on one request, one after the other."""

    plain: Span
    contender: Span

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def span(call: Callable[[], object], device: str = "cpu") -> Span:
    """Time one call. On CUDA waits for the device before and after, and reads the time from its events."""
    if device.startswith("cuda"):
        import torch

        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        cpu = time.process_time()
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return Span(wall=begin.elapsed_time(end) / 1000, cpu=time.process_time() - cpu)
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return Span(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def time_pairs(
    plain: Callable[[list[Request]], object],
    contender: Callable[[list[Request]], object],
    calls: Sequence[list[Request]],
    *,
    device: str = "cpu",
    rounds: int = 1,
    warm: bool = False,
) -> list[Pair]:
    """Time both on each of `calls`, after one unmeasured call each.

    Which of the two goes first alternates, so that neither always finds the caches warm.

    Args:
        calls: what is asked for at once, each a pair.
        rounds: how often to go over them.
        warm: both were called before, so that no unmeasured call is needed.

    Raises: MeasurementError where there is nothing to time.
    """
    if not calls or rounds < 1:
        raise MeasurementError("nothing to time: hand over at least one request and one round")
    if not warm:
        plain(calls[0])
        contender(calls[0])
    pairs = []
    for turn, call in enumerate([call for _ in range(rounds) for call in calls]):
        if turn % 2:
            second = span(lambda asked=call: contender(asked), device)
            first = span(lambda asked=call: plain(asked), device)
        else:
            first = span(lambda asked=call: plain(asked), device)
            second = span(lambda asked=call: contender(asked), device)
        pairs.append(Pair(plain=first, contender=second))
    return pairs


def speedup(pairs: Sequence[Pair], clock: str = "wall") -> Interval:
    """Median over pairs of plain time / contender time, with quartiles; `clock` is "wall" or "cpu"."""
    ratios = []
    for pair in pairs:
        spent = getattr(pair.contender, clock)
        if spent <= 0:
            raise MeasurementError("a call took no time at all; the clock is too coarse for it, time larger requests")
        ratios.append(getattr(pair.plain, clock) / spent)
    return median_quartiles(ratios)
