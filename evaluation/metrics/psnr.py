"""Peak signal-to-noise ratio, over all pixels, colours and frames of one request."""

from __future__ import annotations

import numpy as np

from .metric import METRICS, Metric, same_shape


def psnr(made: np.ndarray, reference: np.ndarray) -> float:
    """-10 log10 of the mean squared error for values in 0..1; infinite where both are identical.

    Shapes: [H, W, C] or [T, H, W, C], both alike.
    """
    a, b = same_shape(made, reference)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0.0 else -10.0 * float(np.log10(error))


METRICS.add(
    "psnr",
    Metric(
        label="PSNR",
        unit="dB",
        measure=psnr,
        better="higher",
        best=100.0,
        cap=100.0,
        digits=1,
        summary="Peak signal-to-noise ratio of each picture, then the mean over pictures; identical ones count 100 dB.",
    ),
)
