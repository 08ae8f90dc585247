"""DiT-3D: a diffusion transformer over voxels that makes point clouds."""

from .finetune import merge_scales, small_parameters
from .model import ATTENTIONS, DiT3DTransformerModel
from .pipeline import DiT3DPipeline, DiT3DPipelineOutput
from .ply import read_ply, write_ply
from .voxel import devoxelize, voxel_places, voxelize

__all__ = [
    "ATTENTIONS",
    "DiT3DPipeline",
    "DiT3DPipelineOutput",
    "DiT3DTransformerModel",
    "devoxelize",
    "merge_scales",
    "read_ply",
    "small_parameters",
    "voxel_places",
    "voxelize",
    "write_ply",
]
