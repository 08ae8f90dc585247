"""Tiny transformers that make pictures: double and single blocks, cross-attention, refiners."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .specimen import DOUBLE_SINGLE, HEADS, IMAGE, PACKED, WIDTH, Specimen, positions, rectangle, specimens


def flux(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    return model(
        hidden_states=x,
        encoder_hidden_states=text,
        timestep=t / 1000,
        img_ids=positions(x.shape[1], 3),
        txt_ids=torch.zeros(text.shape[1], 3),
        return_dict=False,
        **more,
    )[0]


def flux_pooled(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    return flux(model, x, t, text, pooled_projections=text.mean(1), **more)


def flux2(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return model(
        hidden_states=x,
        encoder_hidden_states=text,
        timestep=t / 1000,
        img_ids=positions(x.shape[1], 4),
        txt_ids=torch.zeros(text.shape[1], 4),
        guidance=torch.full_like(t, 4.0),
        return_dict=False,
    )[0]


def longcat(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return flux(model, x, t, text)


def chroma(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    mask = torch.ones(len(x), text.shape[1] + x.shape[1])
    return flux(model, x, t, text, attention_mask=mask, **more)


def dit(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    labels = (text.abs().sum((1, 2)) * 1000).long() % 10
    return model(x, timestep=t, class_labels=labels, return_dict=False)[0][:, : x.shape[1]]


def plain(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    return model(hidden_states=x, encoder_hidden_states=text, timestep=t, return_dict=False, **more)[0]


def masked(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    return plain(model, x, t, text, encoder_attention_mask=torch.ones(text.shape[:2]), **more)


def sd3(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    return plain(model, x, t, text, pooled_projections=text.mean(1), **more)


def pixart(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    added = {"resolution": None, "aspect_ratio": None}
    return masked(model, x, t, text, added_cond_kwargs=added)[:, : x.shape[1]]


def qwen(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    return model(
        hidden_states=x,
        encoder_hidden_states=text,
        encoder_hidden_states_mask=torch.ones(text.shape[:2], dtype=torch.long),
        timestep=t / 1000,
        img_shapes=[[(1, *rectangle(x.shape[1]))]] * len(x),
        return_dict=False,
        **more,
    )[0]


def z_image(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    rows = model(list(x.unsqueeze(2)), (1000 - t) / 1000, list(text), return_dict=False)[0]
    return torch.stack(rows).squeeze(2)


def lumina2(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    mask = torch.ones(text.shape[:2], dtype=torch.bool)
    return plain(model, x, 1 - t / 1000, text, encoder_attention_mask=mask)


def auraflow(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t / 1000, text)


def cogview(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    size = torch.full((len(x), 2), 64.0)
    return plain(model, x, t, text, original_size=size, target_size=size, crop_coords=torch.zeros(len(x), 2))


FLUX = {**HEADS, **DOUBLE_SINGLE, "in_channels": 4, "joint_attention_dim": WIDTH, "axes_dims_rope": (2, 4, 2)}
COGVIEW = {
    **HEADS,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 4,
    "text_embed_dim": WIDTH,
    "time_embed_dim": 8,
    "condition_dim": 4,
    "pos_embed_max_size": 8,
    "sample_size": 8,
}

PICTURES = specimens(
    Specimen(
        cls="DiTTransformer2DModel",
        settings={**HEADS, "in_channels": 4, "out_channels": 8, "num_layers": 4, "sample_size": 8},
        latent=IMAGE,
        call=dit,
    ),
    Specimen(
        cls="FluxTransformer2DModel",
        settings={**FLUX, "pooled_projection_dim": WIDTH},
        latent=PACKED,
        call=flux_pooled,
    ),
    Specimen(
        cls="BriaTransformer2DModel",
        settings={**FLUX, "pooled_projection_dim": WIDTH},
        latent=PACKED,
        call=flux_pooled,
    ),
    Specimen(
        cls="LongCatImageTransformer2DModel",
        settings={**FLUX, "pooled_projection_dim": WIDTH},
        latent=PACKED,
        call=longcat,
    ),
    Specimen(cls="OvisImageTransformer2DModel", settings={**FLUX, "out_channels": 4}, latent=PACKED, call=flux),
    Specimen(
        cls="Flux2Transformer2DModel",
        settings={**FLUX, "axes_dims_rope": (2, 2, 2, 2), "timestep_guidance_channels": 8},
        latent=PACKED,
        call=flux2,
    ),
    Specimen(
        cls="ChromaTransformer2DModel",
        settings={
            **FLUX,
            "approximator_num_channels": 8,
            "approximator_hidden_dim": 16,
            "approximator_layers": 1,
        },
        latent=PACKED,
        call=chroma,
    ),
    Specimen(
        cls="SD3Transformer2DModel",
        settings={
            **HEADS,
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 4,
            "joint_attention_dim": WIDTH,
            "caption_projection_dim": 16,
            "pooled_projection_dim": WIDTH,
            "pos_embed_max_size": 8,
            "dual_attention_layers": (0, 1),
        },
        latent=IMAGE,
        call=sd3,
    ),
    Specimen(
        cls="PixArtTransformer2DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "num_layers": 4,
            "sample_size": 8,
            "cross_attention_dim": 16,
            "caption_channels": WIDTH,
        },
        latent=IMAGE,
        call=pixart,
    ),
    Specimen(
        cls="QwenImageTransformer2DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "out_channels": 4,
            "patch_size": 1,
            "num_layers": 4,
            "joint_attention_dim": WIDTH,
            "axes_dims_rope": (2, 4, 2),
        },
        latent=PACKED,
        call=qwen,
    ),
    Specimen(
        cls="ZImageTransformer2DModel",
        settings={
            "in_channels": 4,
            "dim": 16,
            "n_layers": 4,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": WIDTH,
            "axes_dims": [2, 4, 2],
            "axes_lens": [128, 32, 32],
        },
        latent=IMAGE,
        call=z_image,
    ),
    Specimen(
        cls="Lumina2Transformer2DModel",
        settings={
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 16,
            "num_layers": 4,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 8,
            "axes_dim_rope": (4, 2, 2),
            "axes_lens": (32, 16, 16),
            "cap_feat_dim": WIDTH,
        },
        latent=IMAGE,
        call=lumina2,
    ),
    Specimen(
        cls="SanaTransformer2DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 4,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": 16,
            "caption_channels": WIDTH,
            "sample_size": 8,
        },
        latent=IMAGE,
        call=masked,
    ),
    Specimen(
        cls="AuraFlowTransformer2DModel",
        settings={
            **HEADS,
            "sample_size": 8,
            "in_channels": 4,
            "num_mmdit_layers": 2,
            "num_single_dit_layers": 3,
            "joint_attention_dim": WIDTH,
            "caption_projection_dim": 16,
            "out_channels": 4,
            "pos_embed_max_size": 16,
        },
        latent=IMAGE,
        call=auraflow,
    ),
    Specimen(
        cls="CogView4Transformer2DModel", settings={**COGVIEW, "rope_axes_dim": (8, 8)}, latent=IMAGE, call=cogview
    ),
    Specimen(cls="CogView3PlusTransformer2DModel", settings=COGVIEW, latent=IMAGE, call=cogview),
)
