"""Kernel distance between two sets of pictures: an unbiased estimate that few requests do not inflate."""

from __future__ import annotations

import numpy as np

from ...errors import MeasurementError
from .metric import METRICS, Metric, same_shape


def polynomial(x_RD: np.ndarray, y_SD: np.ndarray) -> np.ndarray:
    """(x . y / D + 1)^3 for every pair, [R, S]."""
    return (x_RD @ y_SD.T / x_RD.shape[1] + 1.0) ** 3


def kernel_distance(made_RD: np.ndarray, reference_RD: np.ndarray) -> float:
    """Squared maximum mean discrepancy under a cubic kernel; 0 where both sets are identical, may be below 0.

    Source: Binkowski et al., "Demystifying MMD GANs", ICLR 2018, arXiv:1801.01401, section 4 (the kernel); Gretton et
    al., "A Kernel Two-Sample Test", JMLR 13, 2012, equation 4 (the estimate). That estimate leaves out a request's own
    pair in the mixed sum too: made and reference share prompt and noise, so those pairs are not independent.

    Shapes: [R requests, D features].
    Raises: MeasurementError for fewer than 2 requests.
    """
    x, y = same_shape(made_RD, reference_RD)
    requests = len(x)
    if requests < 2:
        raise MeasurementError(f"{requests} request: a kernel distance needs at least 2")
    pairs = polynomial(x, x) + polynomial(y, y) - polynomial(x, y) - polynomial(y, x)
    return float((pairs.sum() - np.trace(pairs)) / (requests * (requests - 1)))


METRICS.add(
    "kernel_distance",
    Metric(
        label="kernel distance",
        measure=kernel_distance,
        kind="set",
        better="lower",
        digits=4,
        summary="Unbiased squared kernel distance (cubic, as in KID) of the pipeline's own features, all requests "
        "together, interval by jackknife; not comparable with KID over Inception.",
    ),
)
