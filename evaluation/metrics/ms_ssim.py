"""Structural similarity over several scales: details and coarse shapes each count."""

from __future__ import annotations

import numpy as np

from ...errors import MeasurementError
from .metric import METRICS, Metric, same_shape
from .ssim import C1, C2, WINDOW, blur

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""How much each scale counts, finest first (Wang et al. 2003, section 3.2)."""

SMALLEST = 2 * len(WINDOW)
"""Shortest side that leaves the window room at two scales."""


def halved(x_THWC: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    t, h, w, c = x_THWC.shape
    return x_THWC[:, : h // 2 * 2, : w // 2 * 2].reshape(t, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def scales_of(shortest: int) -> int:
    """How many halvings leave room for the window, itself included, at most five."""
    return min(len(WEIGHTS), int(np.log2(shortest / len(WINDOW))) + 1) if shortest >= len(WINDOW) else 0


def ms_ssim(made: np.ndarray, reference: np.ndarray) -> float:
    """Product over scales of contrast and structure, with luminance at the coarsest: 1 where both are identical.

    Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", Asilomar 2003,
    equation 7. Differs from the paper: frames under 176 pixels take fewer scales, the weights scaled to a sum of 1;
    negative structure, whose fractional power does not exist, counts 0.

    Shapes: [H, W, C] or [T, H, W, C], both alike, H and W at least 22.
    Raises: MeasurementError for smaller frames.
    """
    a, b = same_shape(made, reference)
    if a.ndim == 3:
        a, b = a[None], b[None]
    if min(a.shape[1:3]) < SMALLEST:
        raise MeasurementError(f"MS-SSIM needs frames of {SMALLEST} x {SMALLEST} pixels; these are {a.shape[1:3]}")
    scales = scales_of(min(a.shape[1:3]))
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    product_T = np.ones(len(a))
    for scale, weight in enumerate(weights):
        mean_a, mean_b = blur(a), blur(b)
        variances = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
        likeness = (2 * (blur(a * b) - mean_a * mean_b) + C2) / (variances + C2)
        if scale == scales - 1:
            likeness = likeness * (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
        product_T *= np.maximum(likeness.mean(axis=(1, 2, 3)), 0.0) ** weight
        a, b = halved(a), halved(b)
    return float(product_T.mean())


METRICS.add(
    "ms_ssim",
    Metric(
        label="MS-SSIM",
        measure=ms_ssim,
        better="higher",
        best=1.0,
        smallest=SMALLEST,
        digits=4,
        summary="Structural similarity over up to five scales, fewer where frames are small; 1 is identical.",
    ),
)
