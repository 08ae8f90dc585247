"""FID: the Frechet distance over the 2048 features of the Inception network of its authors."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .frechet import frechet
from .metric import METRICS, Metric
from .weights import needs, torch_checkpoint

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's port of the network."""


@cache
def inception() -> Any:
    """The network, loaded once, from the file on this machine."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    path = str(torch_checkpoint(WEIGHTS))
    return NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"], feature_extractor_weights_path=path)


def inception_features(media: list[np.ndarray]) -> np.ndarray:
    """[R, 2048]; of a clip, the mean over its frames."""
    import torch

    rows = []
    for x in media:
        frames = torch.from_numpy(((x[None] if x.ndim == 3 else x).clip(0, 1) * 255).round().astype(np.uint8))
        with torch.no_grad():
            rows.append(inception()(frames.permute(0, 3, 1, 2)).mean(dim=0).float().numpy())
    return np.stack(rows)


METRICS.add(
    "fid",
    Metric(
        label="FID",
        measure=frechet,
        kind="set",
        better="lower",
        features=inception_features,
        missing=needs(("torchmetrics", "torch_fidelity"), lambda: [torch_checkpoint(WEIGHTS)]),
        summary="Frechet Inception distance to the reference's pictures (not to photographs), all requests together, "
        "interval by jackknife; needs more than 2048 requests.",
    ),
)
