"""Tiny random transformers, one for every class that a family names: two heads, few tokens, built in milliseconds.

Random weights prove plumbing, never fidelity. Every call here has the same shape: latents in, a field of the same shape
out, at a time in 0..1000, with a few text tokens a sample; what a model needs beyond that is made up from those.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

WIDTH = 16
"""Width of the text tokens."""

Call = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """How to build one tiny transformer and how to call it."""

    cls: str
    settings: dict[str, Any]
    latent: tuple[int, ...]
    """Shape of one sample's latents."""

    call: Call
    """call(model, latents_B..., time_B, text_BSD) -> a field shaped like the latents."""

    home: str = "diffusers"
    """The module that has the class."""

    @property
    def id(self) -> str:
        return self.cls

    def build(self, seed: int = 0, **changes: Any) -> nn.Module:
        """A fresh transformer whose gates are open: with the initial zeros of adaLN every block is an identity."""
        torch.manual_seed(seed)
        cls = getattr(importlib.import_module(self.home), self.cls)
        model = cls(**{**self.settings, **changes}).eval().requires_grad_(False)
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.1)
            if weight.ndim == 1 and name.endswith("weight"):
                weight.add_(1.0)
        return model


def rectangle(count: int) -> tuple[int, int]:
    """Height and width of `count` packed tokens, as near to a square as can be: 4 x 4 of 16, 8 x 12 of 96."""
    height = max(side for side in range(1, math.isqrt(count) + 1) if count % side == 0)
    return height, count // height


def positions(count: int, axes: int) -> torch.Tensor:
    """Where each packed token lies, as pipelines tell it: (frame, row, column), and a fourth axis that counts text."""
    ids, width = torch.zeros(count, axes), rectangle(count)[1]
    ids[:, 1], ids[:, 2] = torch.arange(count) // width, torch.arange(count) % width
    return ids


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
    return model(x, timestep=t.long(), class_labels=labels, return_dict=False)[0][:, : x.shape[1]]


def own(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    labels = (text.abs().sum((1, 2)) * 1000).long() % 10
    return model(x, t, labels, return_dict=False)[0]


def plain(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    return model(hidden_states=x, encoder_hidden_states=text, timestep=t, return_dict=False, **more)[0]


def masked(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    return plain(model, x, t, text, encoder_attention_mask=torch.ones(text.shape[:2]), **more)


def hunyuan_video(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    mask = torch.ones(text.shape[:2], dtype=torch.long)
    guidance = torch.full_like(t, 6000.0)
    return plain(model, x, t, text, encoder_attention_mask=mask, pooled_projections=text.mean(1), guidance=guidance)


def framepack(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    # The history that is never denoised: one frame as it is, two and four frames coarser.
    history = {
        name: torch.full((len(x), x.shape[1], frames, *x.shape[3:]), 0.5)
        for name, frames in (("latents_clean", 1), ("latents_history_2x", 2), ("latents_history_4x", 4))
    }
    indices = {f"indices_{name}": torch.arange(value.shape[2]) for name, value in history.items()}
    return model(
        hidden_states=x,
        timestep=t,
        encoder_hidden_states=text,
        encoder_attention_mask=torch.ones(text.shape[:2], dtype=torch.long),
        pooled_projections=text.mean(1),
        image_embeds=text[:, :1],
        indices_latents=torch.arange(7, 7 + x.shape[2]),
        guidance=torch.full_like(t, 6000.0),
        return_dict=False,
        **history,
        **indices,
    )[0]


def hunyuan_image(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t, text, encoder_attention_mask=torch.ones(text.shape[:2], dtype=torch.long))


def hunyuan15(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    mask = torch.ones(text.shape[:2], dtype=torch.long)
    return plain(
        model,
        x,
        t,
        text,
        encoder_attention_mask=mask,
        encoder_hidden_states_2=text[:, :2],
        encoder_attention_mask_2=mask[:, :2],
        image_embeds=torch.zeros(len(x), 2, WIDTH),
    )


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


def ltx(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    height, width = rectangle(x.shape[1] // 2)
    return masked(model, x, t, text, num_frames=2, height=height, width=width)


def z_image(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    rows = model(list(x.unsqueeze(2)), (1000 - t) / 1000, list(text), return_dict=False)[0]
    return torch.stack(rows).squeeze(2)


def lumina2(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    mask = torch.ones(text.shape[:2], dtype=torch.bool)
    return plain(model, x, 1 - t / 1000, text, encoder_attention_mask=mask)


def mochi(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t, text, encoder_attention_mask=torch.ones(text.shape[:2], dtype=torch.bool))


def auraflow(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t / 1000, text)


def cogview(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    size = torch.full((len(x), 2), 64.0)
    return plain(model, x, t, text, original_size=size, target_size=size, crop_coords=torch.zeros(len(x), 2))


HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
DOUBLE_SINGLE = {"num_layers": 2, "num_single_layers": 3}
PACKED, IMAGE, VIDEO = (16, 4), (4, 8, 8), (4, 2, 8, 8)
TEXT_TO_VIDEO = {**HEADS, "in_channels": 4, "out_channels": 4, "num_layers": 4}
WAN = {**TEXT_TO_VIDEO, "text_dim": WIDTH, "freq_dim": 16, "ffn_dim": 32, "rope_max_seq_len": 32}
HUNYUAN = {
    **HEADS,
    **DOUBLE_SINGLE,
    "in_channels": 4,
    "out_channels": 4,
    "num_refiner_layers": 1,
    "text_embed_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
    "rope_axes_dim": (2, 4, 2),
}
FLUX = {**HEADS, **DOUBLE_SINGLE, "in_channels": 4, "joint_attention_dim": WIDTH, "axes_dims_rope": (2, 4, 2)}
COGVIDEO = {
    **HEADS,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 4,
    "text_embed_dim": WIDTH,
    "time_embed_dim": 8,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 5,
    "max_text_seq_length": 5,
}
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


def cogvideox(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x.transpose(1, 2), t, text).transpose(1, 2)


TINY_MODELS: dict[str, TinyModel] = {
    tiny.cls: tiny
    for tiny in (
        TinyModel(
            cls="DiTTransformer2DModel",
            settings={**HEADS, "in_channels": 4, "out_channels": 8, "num_layers": 4, "sample_size": 8},
            latent=IMAGE,
            call=dit,
        ),
        TinyModel(
            cls="FluxTransformer2DModel",
            settings={**FLUX, "pooled_projection_dim": WIDTH},
            latent=PACKED,
            call=flux_pooled,
        ),
        TinyModel(
            cls="BriaTransformer2DModel",
            settings={**FLUX, "pooled_projection_dim": WIDTH},
            latent=PACKED,
            call=flux_pooled,
        ),
        TinyModel(
            cls="LongCatImageTransformer2DModel",
            settings={**FLUX, "pooled_projection_dim": WIDTH},
            latent=PACKED,
            call=longcat,
        ),
        TinyModel(cls="OvisImageTransformer2DModel", settings={**FLUX, "out_channels": 4}, latent=PACKED, call=flux),
        TinyModel(
            cls="Flux2Transformer2DModel",
            settings={**FLUX, "axes_dims_rope": (2, 2, 2, 2), "timestep_guidance_channels": 8},
            latent=PACKED,
            call=flux2,
        ),
        TinyModel(
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
        TinyModel(cls="WanTransformer3DModel", settings=WAN, latent=VIDEO, call=plain),
        TinyModel(cls="SkyReelsV2Transformer3DModel", settings=WAN, latent=VIDEO, call=plain),
        TinyModel(cls="ChronoEditTransformer3DModel", settings=WAN, latent=VIDEO, call=plain),
        TinyModel(cls="HunyuanVideoTransformer3DModel", settings=HUNYUAN, latent=VIDEO, call=hunyuan_video),
        TinyModel(
            cls="HunyuanVideoFramepackTransformer3DModel",
            settings={**HUNYUAN, "has_image_proj": True, "image_proj_dim": WIDTH, "has_clean_x_embedder": True},
            latent=VIDEO,
            call=framepack,
        ),
        TinyModel(
            cls="HunyuanImageTransformer2DModel",
            settings={
                **{k: v for k, v in HUNYUAN.items() if k != "pooled_projection_dim"},
                "patch_size": (2, 2),
                "rope_axes_dim": (4, 4),
            },
            latent=IMAGE,
            call=hunyuan_image,
        ),
        TinyModel(
            cls="HunyuanVideo15Transformer3DModel",
            settings={
                **TEXT_TO_VIDEO,
                "num_refiner_layers": 1,
                "patch_size": 2,
                "text_embed_dim": WIDTH,
                "text_embed_2_dim": WIDTH,
                "image_embed_dim": WIDTH,
                "rope_axes_dim": (2, 4, 2),
                "target_size": 8,
                "task_type": "t2v",
            },
            latent=VIDEO,
            call=hunyuan15,
        ),
        TinyModel(cls="CogVideoXTransformer3DModel", settings=COGVIDEO, latent=VIDEO, call=cogvideox),
        TinyModel(cls="ConsisIDTransformer3DModel", settings=COGVIDEO, latent=VIDEO, call=cogvideox),
        TinyModel(
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
        TinyModel(
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
        TinyModel(
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
        TinyModel(
            cls="LTXVideoTransformer3DModel",
            settings={
                **HEADS,
                "in_channels": 4,
                "out_channels": 4,
                "num_layers": 4,
                "cross_attention_dim": 16,
                "caption_channels": WIDTH,
            },
            latent=PACKED,
            call=ltx,
        ),
        TinyModel(
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
        TinyModel(
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
        TinyModel(
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
        TinyModel(
            cls="MochiTransformer3DModel",
            settings={
                **HEADS,
                "num_layers": 4,
                "pooled_projection_dim": 16,
                "in_channels": 4,
                "text_embed_dim": WIDTH,
                "time_embed_dim": 8,
                "max_sequence_length": 5,
            },
            latent=VIDEO,
            call=mochi,
        ),
        TinyModel(
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
        TinyModel(
            cls="CogView4Transformer2DModel", settings={**COGVIEW, "rope_axes_dim": (8, 8)}, latent=IMAGE, call=cogview
        ),
        TinyModel(cls="CogView3PlusTransformer2DModel", settings=COGVIEW, latent=IMAGE, call=cogview),
    )
}

OWN_MODELS: dict[str, TinyModel] = {
    tiny.cls: tiny
    for tiny in (
        TinyModel(
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
        TinyModel(
            cls="VDTTransformer3DModel",
            settings={**HEADS, "in_channels": 4, "num_layers": 4, "sample_size": 8, "num_embeds_ada_norm": 10},
            latent=VIDEO,
            call=own,
            home="outpace.pipelines.vdt",
        ),
        TinyModel(
            cls="DiT3DTransformerModel",
            settings={**HEADS, "num_layers": 4, "voxel_size": 4, "patch_size": 2, "num_embeds_ada_norm": 10},
            latent=(24, 3),
            call=own,
            home="outpace.pipelines.dit3d",
        ),
    )
}
"""Classes of our own pipelines, held to the contract of every family and to no more."""
