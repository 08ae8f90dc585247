"""Frechet distance between two sets of pictures: of the Gaussians that their features' means and covariances give."""

from __future__ import annotations

import numpy as np

from ...errors import MeasurementError
from .metric import METRICS, Metric, same_shape


def frechet(made_RD: np.ndarray, reference_RD: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); 0 where both sets are identical.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017, arXiv:1706.08500, equation 6.
    The trace of the root is the sum of the singular values of A B^T / (R - 1), A and B the centred features: no root of
    a matrix that may be near singular. Few requests make it too large (Chong and Forsyth, CVPR 2020).

    Shapes: [R requests, D features].
    Raises: MeasurementError unless there are more requests than features, which a full covariance needs.
    """
    x, y = same_shape(made_RD, reference_RD)
    requests, features = x.shape
    if requests <= features:
        raise MeasurementError(
            f"{requests} requests for {features} features: a covariance needs more than {features} requests"
        )
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    free = requests - 1
    left, right = np.linalg.qr(a).R, np.linalg.qr(b).R
    root = np.linalg.svd(left @ right.T, compute_uv=False).sum() / free
    spread = ((a**2).sum() + (b**2).sum()) / free
    return float(max(0.0, ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + spread - 2.0 * root))


METRICS.add(
    "frechet",
    Metric(
        label="Frechet distance",
        measure=frechet,
        kind="set",
        better="lower",
        digits=3,
        summary="Frechet distance of the pipeline's own features (a reader's, averaged over places), all requests "
        "together, interval by jackknife; not comparable with FID.",
    ),
)
