"""Relative distance of the latents, before the decoder can hide or magnify it."""

from __future__ import annotations

import numpy as np

from .metric import METRICS, Metric, same_shape


def latent_l2(made: np.ndarray, reference: np.ndarray) -> float:
    """||made - reference|| / ||reference|| over all entries: 0 where both are identical."""
    a, b = same_shape(made, reference)
    scale = float(np.linalg.norm(b))
    distance = float(np.linalg.norm(a - b))
    if scale == 0.0:
        return 0.0 if distance == 0.0 else float("inf")
    return distance / scale


METRICS.add(
    "latent_l2",
    Metric(
        label="latent L2",
        measure=latent_l2,
        better="lower",
        best=0.0,
        of="latents",
        digits=4,
        summary="Relative Euclidean distance of what is handed to the decoder; 0 is identical.",
    ),
)
