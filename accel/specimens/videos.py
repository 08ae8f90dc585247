"""Tiny transformers that make videos."""

from __future__ import annotations

import torch
from torch import nn

from .pictures import masked, plain
from .specimen import DOUBLE_SINGLE, HEADS, IMAGE, PACKED, TEXT_TO_VIDEO, VIDEO, WIDTH, Specimen, rectangle, specimens


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


def ltx(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    height, width = rectangle(x.shape[1] // 2)
    return masked(model, x, t, text, num_frames=2, height=height, width=width)


def mochi(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t, text, encoder_attention_mask=torch.ones(text.shape[:2], dtype=torch.bool))


def cogvideox(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x.transpose(1, 2), t, text).transpose(1, 2)


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

VIDEOS = specimens(
    Specimen(cls="WanTransformer3DModel", settings=WAN, latent=VIDEO, call=plain),
    Specimen(cls="SkyReelsV2Transformer3DModel", settings=WAN, latent=VIDEO, call=plain),
    Specimen(cls="ChronoEditTransformer3DModel", settings=WAN, latent=VIDEO, call=plain),
    Specimen(cls="HunyuanVideoTransformer3DModel", settings=HUNYUAN, latent=VIDEO, call=hunyuan_video),
    Specimen(
        cls="HunyuanVideoFramepackTransformer3DModel",
        settings={**HUNYUAN, "has_image_proj": True, "image_proj_dim": WIDTH, "has_clean_x_embedder": True},
        latent=VIDEO,
        call=framepack,
    ),
    Specimen(
        cls="HunyuanImageTransformer2DModel",
        settings={
            **{k: v for k, v in HUNYUAN.items() if k != "pooled_projection_dim"},
            "patch_size": (2, 2),
            "rope_axes_dim": (4, 4),
        },
        latent=IMAGE,
        call=hunyuan_image,
    ),
    Specimen(
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
    Specimen(cls="CogVideoXTransformer3DModel", settings=COGVIDEO, latent=VIDEO, call=cogvideox),
    Specimen(cls="ConsisIDTransformer3DModel", settings=COGVIDEO, latent=VIDEO, call=cogvideox),
    Specimen(
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
    Specimen(
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
)
