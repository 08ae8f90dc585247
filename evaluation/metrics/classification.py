"""How right a classifier is, and whether its probabilities mean what they say.

Shapes: probabilities_RC [R pictures, C classes], each row summing to one; classes_R, the right ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...errors import MeasurementError

BINS = 10


def accuracy(probabilities_RC: np.ndarray, classes_R: np.ndarray) -> float:
    """Share of pictures whose likeliest class is the right one."""
    p, y = _checked(probabilities_RC, classes_R)
    return float(np.mean(p.argmax(1) == y))


def calibration_bins(probabilities_RC: np.ndarray, classes_R: np.ndarray) -> list[tuple[float, float, float]]:
    """By confidence, in ten equal bins: (share of the pictures, mean confidence, accuracy); empty bins left out."""
    p, y = _checked(probabilities_RC, classes_R)
    confidence, right = p.max(1), p.argmax(1) == y
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        (float(inside.mean()), float(confidence[inside].mean()), float(right[inside].mean()))
        for inside in (place == number for number in range(BINS))
        if inside.any()
    ]


def calibration_error(probabilities_RC: np.ndarray, classes_R: np.ndarray) -> float:
    """Expected calibration error (ECE): distance of confidence and accuracy, over ten bins weighted by their pictures.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599, equation 3.
    """
    bins = calibration_bins(probabilities_RC, classes_R)
    return float(sum(share * abs(confidence - right) for share, confidence, right in bins))


def negative_log_likelihood(probabilities_RC: np.ndarray, classes_R: np.ndarray) -> float:
    """Mean of -log of the right class's probability, which counts as 1e-12 at least."""
    p, y = _checked(probabilities_RC, classes_R)
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean())


def brier(probabilities_RC: np.ndarray, classes_R: np.ndarray) -> float:
    """Mean squared distance of the probabilities from the right answer, summed over classes; 0 to 2."""
    p, y = _checked(probabilities_RC, classes_R)
    return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean())


CLASSIFICATION: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "ece": calibration_error,
    "nll": negative_log_likelihood,
    "brier": brier,
}
"""Every measure of a table; only of accuracy more is better."""


def _checked(probabilities_RC: np.ndarray, classes_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(probabilities_RC, dtype=np.float64), np.asarray(classes_R)
    if p.ndim != 2 or y.shape != p.shape[:1] or not p.size:
        raise MeasurementError(f"probabilities {list(p.shape)} and classes {list(y.shape)} do not go together")
    if not np.isfinite(p).all() or p.min() < 0 or np.abs(p.sum(1) - 1).max() > 1e-3:
        raise MeasurementError("these are no probabilities: every row has to be finite, not negative and sum to one")
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise MeasurementError(f"the right classes have to be whole numbers from 0 to {p.shape[1] - 1}")
    return p, y
