"""VDT: a video diffusion transformer whose one set of weights predicts, interpolates, animates and completes clips."""

from .masks import TASKS, compose, draw_mask, draw_masks, masked_error
from .model import VDTTransformer3DModel
from .pipeline import VDTPipeline, VDTPipelineOutput

__all__ = [
    "TASKS",
    "VDTPipeline",
    "VDTPipelineOutput",
    "VDTTransformer3DModel",
    "compose",
    "draw_mask",
    "draw_masks",
    "masked_error",
]
