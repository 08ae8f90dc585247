"""LPIPS: distance in the features of a network trained on pictures, weighted to agree with people."""

from __future__ import annotations

import numpy as np

from .metric import METRICS, Metric, same_shape
from .weights import needs, torch_checkpoint

BACKBONE = "alexnet-owt-7be5be79.pth"
"""torchvision's AlexNet; the layer weights come with torchmetrics."""


def lpips(made: np.ndarray, reference: np.ndarray) -> float:
    """Mean over frames of the learned distance, AlexNet features; 0 where both are identical.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
    arXiv:1801.03924, as torchmetrics holds it.

    Shapes: [H, W, 3] or [T, H, W, 3] in 0..1, both alike.
    """
    import torch
    from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

    def frames(x: np.ndarray) -> torch.Tensor:
        stack = x[None] if x.ndim == 3 else x
        return torch.from_numpy(stack.clip(0, 1)).float().permute(0, 3, 1, 2)

    a, b = same_shape(made, reference)
    with torch.no_grad():
        return float(learned_perceptual_image_patch_similarity(frames(a), frames(b), net_type="alex", normalize=True))


METRICS.add(
    "lpips",
    Metric(
        label="LPIPS",
        measure=lpips,
        better="lower",
        best=0.0,
        smallest=64,
        digits=4,
        missing=needs(("torchmetrics", "torchvision"), lambda: [torch_checkpoint(BACKBONE)]),
        summary="Learned perceptual distance, AlexNet features; 0 is identical.",
    ),
)
