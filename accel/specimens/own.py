"""Tiny transformers of the pipelines that outpace brings itself."""

from __future__ import annotations

import torch
from torch import nn

from .specimen import HEADS, IMAGE, VIDEO, Specimen, specimens


def own(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    labels = (text.abs().sum((1, 2)) * 1000).long() % 10
    return model(x, t, labels, return_dict=False)[0]


OWN = specimens(
    Specimen(
        cls="LegoTransformer2DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "sample_size": 8,
            "brick_sizes": (8, 4, 2, 8),
            "patch_sizes": (2, 2, 1, 4),
            "num_layers": (1, 1, 1, 1),
        },
        latent=IMAGE,
        call=own,
        home="outpace.pipelines.lego",
    ),
    Specimen(
        cls="VDTTransformer3DModel",
        settings={**HEADS, "in_channels": 4, "num_layers": 4, "sample_size": 8, "num_embeds_ada_norm": 10},
        latent=VIDEO,
        call=own,
        home="outpace.pipelines.vdt",
    ),
    Specimen(
        cls="DiT3DTransformerModel",
        settings={**HEADS, "num_layers": 4, "voxel_size": 4, "patch_size": 2, "num_embeds_ada_norm": 10},
        latent=(24, 3),
        call=own,
        home="outpace.pipelines.dit3d",
    ),
)
