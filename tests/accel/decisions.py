"""Thresholds chosen so that the samples of a batch are decided differently, and what was decided."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tiny import TinyPipeline

from outpace.accel import GatedTaylor, Trace, accelerate


def dividing_threshold(pipe: TinyPipeline, seeds: list[int], **call: Any) -> float:
    """A threshold in the widest gap between the samples' errors at the first call that the gate decides."""
    with accelerate(pipe, GatedTaylor(threshold=1e6, gate="paper", order=1, correct=False)) as run:
        pipe(seeds, **call)
    errors = next(sorted(c.error) for c in run.trace.calls if None not in c.error)
    low, high = max(pairwise(errors), key=lambda pair: pair[1] / pair[0])
    return (low * high) ** 0.5


def computed_by_sample(trace: Trace) -> list[list[bool]]:
    """For each sample, which of its calls were computed."""
    return [list(sample) for sample in zip(*(c.computed for c in trace.calls), strict=True)]


def mixed_calls(trace: Trace) -> int:
    """Calls in which some samples were computed and others forecast."""
    return sum(0 < sum(c.computed) < len(c.computed) for c in trace.calls)
