"""Structural similarity: means, variances and covariance under a Gaussian window, compared place by place."""

from __future__ import annotations

import numpy as np

from ...errors import MeasurementError
from .metric import METRICS, Metric, same_shape

SIGMA = 1.5
RADIUS = 5
C1, C2 = 0.01**2, 0.03**2

_OFFSETS = np.arange(-RADIUS, RADIUS + 1)
WINDOW = np.exp(-(_OFFSETS**2) / (2 * SIGMA**2))
WINDOW /= WINDOW.sum()


def blur(x_THWC: np.ndarray) -> np.ndarray:
    """Windowed mean at the places whose whole 11 x 11 window lies inside the frame."""
    from scipy.ndimage import correlate1d

    rows = correlate1d(x_THWC, WINDOW, axis=1, mode="nearest")[:, RADIUS:-RADIUS]
    return correlate1d(rows, WINDOW, axis=2, mode="nearest")[:, :, RADIUS:-RADIUS]


def ssim(made: np.ndarray, reference: np.ndarray) -> float:
    """Mean structural similarity for values in 0..1: 1 where both are identical. Frames of a clip are averaged.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", IEEE TIP 13(4), 2004, with its settings: 11 x 11 Gaussian window, sigma 1.5, K1 .01, K2 .03.

    Shapes: [H, W, C] or [T, H, W, C], both alike, H and W at least 11.
    Raises: MeasurementError for frames smaller than the window.
    """
    a, b = same_shape(made, reference)
    if a.ndim == 3:
        a, b = a[None], b[None]
    if min(a.shape[1:3]) < len(WINDOW):
        raise MeasurementError(f"SSIM needs frames of at least 11 x 11 pixels; these are {a.shape[1]} x {a.shape[2]}")
    mean_a, mean_b = blur(a), blur(b)
    variance_a = blur(a * a) - mean_a**2
    variance_b = blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    scale = (mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2)
    return float(np.mean(likeness / scale))


METRICS.add(
    "ssim",
    Metric(
        label="SSIM",
        measure=ssim,
        better="higher",
        best=1.0,
        smallest=len(WINDOW),
        digits=4,
        summary="Structural similarity, 11 x 11 Gaussian window, per colour and frame; 1 is identical.",
    ),
)
