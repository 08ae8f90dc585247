"""What a metric is, and where metrics register. To add one: a file beside this one, and its name in __init__."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import MeasurementError
from ...registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A distance or likeness between what a contender made and what a reference made for the same request."""

    label: str
    """For table heads: "PSNR"."""

    measure: Callable[[np.ndarray, np.ndarray], float]
    """(made, reference) of one request -> value."""

    better: Literal["higher", "lower"]
    """Which way is closer to the reference."""

    unit: str = ""
    """For people: "dB"."""

    of: Literal["media", "latents"] = "media"
    """What it reads; a metric of latents is left out where a pipeline has none."""

    smallest: int = 1
    """Shortest side of a frame it can read, in pixels; left out for smaller media."""

    cap: float | None = None
    """Value put in place of infinity before averaging, so that one identical picture does not hide the others."""

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
