"""Features of what was made, kept beside each sample, for distances between whole sets."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import MeasurementError
from .metrics import METRICS, Metric

Extractor = Callable[[list[np.ndarray]], np.ndarray]
OF_STUDY = "study"
"""Where features of the study's own extractor are kept; those of a metric's own, under the metric's name."""


def extractors(metrics: dict[str, Metric], of_study: Extractor | None) -> dict[str, Extractor]:
    """Every extractor that set metrics need, by the name its features are kept under."""
    needed: dict[str, Extractor] = {}
    for name, metric in metrics.items():
        if metric.kind == "set" and metric.features is not None:
            needed[name] = metric.features
        elif metric.kind == "set" and of_study is not None:
            needed[OF_STUDY] = of_study
    return needed


def read_features(needed: dict[str, Extractor], media: Sequence[np.ndarray]) -> list[dict[str, str]]:
    """Features of each sample as text, for JSON; none for a sample that is not finite."""
    rows: list[dict[str, str]] = [{} for _ in media]
    finite = [i for i, x in enumerate(media) if np.isfinite(x).all()]
    if finite:
        for name, extract in needed.items():
            found = np.asarray(extract([media[i] for i in finite]), dtype=np.float32)
            for place, row in zip(finite, found, strict=True):
                rows[place][name] = base64.b64encode(row.tobytes()).decode()
    return rows


def features_of(samples: Sequence[dict[str, Any]], metric: str) -> np.ndarray:
    """Features [R, D] that `metric` reads.

    Raises: MeasurementError where a sample has none: there is no extractor, or it was not finite.
    """
    key = OF_STUDY if METRICS[metric].features is None else metric
    texts = [(sample.get("features") or {}).get(key) for sample in samples]
    if all(text is None for text in texts):
        raise MeasurementError("no feature extractor is known for this pipeline")
    if any(text is None for text in texts):
        raise MeasurementError("some samples are not finite and have no features")
    return np.stack([np.frombuffer(base64.b64decode(text or ""), dtype=np.float32) for text in texts])
