"""What a metric is, and where metrics register. To add one: a file beside this one, and its name in __init__."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import MeasurementError
from ...registry import Registry


def nothing_missing() -> None:
    """For metrics that need nothing but their own file."""
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A distance or likeness between what a contender made and what a reference made for the same request.

    Three kinds: "pair" compares two answers to one request, "prompt" reads one answer and what was asked for, "set"
    compares all answers of a contender with all of a reference, by features.
    """

    label: str
    """For table heads: "PSNR"."""

    measure: Callable[..., float]
    """pair: (made, reference) of one request. prompt: (made, prompt text) of one request. set: (made, reference)
    features [R requests, D features], row by row of the same requests; MeasurementError where there are too few."""

    better: Literal["higher", "lower"]
    """Which way is closer to the reference."""

    kind: Literal["pair", "prompt", "set"] = "pair"
    """What `measure` is handed."""

    unit: str = ""
    """For people: "dB"."""

    of: Literal["media", "latents"] = "media"
    """What it reads; a metric of latents is left out where a pipeline has none."""

    smallest: int = 1
    """Shortest side of a frame it can read, in pixels; left out for smaller media."""

    frames: int = 1
    """Fewest frames it can read; one that reads motion asks for 2 and is left out for pictures."""

    missing: Callable[[], str | None] = nothing_missing
    """Why it cannot run on this machine ("weights missing at ..."), or None. Asked once a study; must be quick, and
    must never fetch anything."""

    features: Callable[[list[np.ndarray]], np.ndarray] | None = None
    """Of a set metric: media -> features [R, D]. None: those of the study, such as a pocket's own reader."""

    cap: float | None = None
    """Value put in place of infinity before averaging, so that one identical picture does not hide the others."""

    best: float | None = None
    """Its value for two equal answers, which none is better than; None where there is no such."""

    digits: int = 2
    """Decimals in tables."""

    summary: str = ""
    """One sentence for the report."""


METRICS: Registry[Metric] = Registry("metric")


def same_shape(made: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64. Raises: MeasurementError where they have different shapes or are empty."""
    if made.shape != reference.shape or made.size == 0:
        raise MeasurementError(
            f"cannot compare {list(made.shape)} with {list(reference.shape)}: "
            "both must come from the same request at the same size"
        )
    return np.asarray(made, dtype=np.float64), np.asarray(reference, dtype=np.float64)
