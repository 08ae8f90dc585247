"""Tiny transformers that make videos over a control, a driving video, a camera, or chunk by chunk."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from .pictures import masked, plain
from .specimen import HEADS, PACKED, TEXT_TO_VIDEO, VIDEO, WIDTH, Specimen, specimens
from .videos import WAN


def cosmos(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t / 1000, text)


def vace(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    control = text.mean((1, 2))[:, None, None, None, None] + torch.linspace(0, 1, 8).expand(len(x), 4, 2, 8, 8)
    return plain(model, x, t, text, control_hidden_states=control)


def animate(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    # Three frames of a face become one of motion, and a frame of padding goes before it.
    faces = text.mean((1, 2))[:, None, None, None, None] + torch.linspace(0, 1, 16).expand(len(x), 3, 3, 16, 16)
    known = torch.full((len(x), 8, *x.shape[2:]), 0.5)
    pose = torch.linspace(-0.2, 0.2, x[0, :, 1:].numel()).view_as(x[0, :, 1:]).expand_as(x[:, :, 1:])
    out = plain(
        model,
        torch.cat([x, known], 1),
        t,
        text,
        encoder_hidden_states_image=text[:, :2],
        pose_hidden_states=pose,
        face_pixel_values=faces,
    )
    return out


def kandinsky(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    grid = x.permute(0, 2, 3, 4, 1)
    ranges = [torch.arange(size) for size in (x.shape[2], x.shape[3] // 2, x.shape[4] // 2)]
    out = model(
        grid,
        encoder_hidden_states=text,
        timestep=t,
        pooled_projections=text.mean(1),
        visual_rope_pos=ranges,
        text_rope_pos=torch.arange(text.shape[1]),
        return_dict=False,
    )
    return out.permute(0, 4, 1, 2, 3)


def kandinsky_sr(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    # The low resolution and its mask lie beside the latents.
    low = torch.full((len(x), 5, *x.shape[2:]), 0.5)
    grid = torch.cat([x, low], 1).permute(0, 2, 3, 4, 1).contiguous()
    return model(grid, t, return_dict=False)[0].permute(0, 4, 1, 2, 3)


def anyflow(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    times = t[:, None].expand(-1, x.shape[2])
    frames = x.transpose(1, 2)
    with torch.compiler.set_stance("force_eager"):  # building masks by the compiler takes a minute
        out = model(frames, times, 0.5 * times, text, return_dict=False, **more)[0]
    return out.transpose(1, 2)


def anyflow_far(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return anyflow(model, x, t, text, chunk_partition=[1, 1])


def helios(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    def before(frames: int) -> torch.Tensor:
        return text.mean((1, 2))[:, None, None, None, None] + torch.linspace(0, 1, 8).expand(len(x), 4, frames, 8, 8)

    def indices(frames: int) -> torch.Tensor:
        return torch.arange(frames).expand(len(x), -1)

    return plain(
        model,
        x,
        t,
        text,
        indices_hidden_states=7 + indices(2),
        indices_latents_history_short=indices(1),
        indices_latents_history_mid=indices(1),
        indices_latents_history_long=indices(4),
        latents_history_short=before(1),
        latents_history_mid=before(1),
        latents_history_long=before(4),
    )


def sana_wm(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    times = t[:, None, None].expand(-1, 1, x.shape[2])
    return plain(model, x, times, text[:, None], mask=torch.ones(text.shape[:2]))


def sana_wm_refiner(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(x.shape[1])[:, None] * torch.ones(len(x), 1, 16) / 10
    times = t[:, None].expand(-1, x.shape[1])
    return plain(
        model,
        x,
        times,
        text,
        video_rotary_emb=(angles.cos(), angles.sin()),
        encoder_attention_mask=torch.ones(text.shape[:2]),
    )


@functools.cache
def kept_for(batch: int) -> Any:
    """The cache of Wan-Animate 2, one object from step to step as in its pipeline."""
    from diffusers.models.transformers.transformer_wan_animate_2 import WanAnimate2KVCache

    return WanAnimate2KVCache(4)


def wan_animate2(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    # The driving video is read once into a cache of keys and values, which the generation then looks up.
    driving = [0.5 + 0.1 * sample.roll(1, -1) for sample in x]
    condition = [torch.full((4, *x.shape[2:]), 0.5)] * len(x)
    grid = torch.tensor([[x.shape[2], x.shape[3] // 2, x.shape[4] // 2]] * len(x))
    common = {
        "encoder_hidden_states": list(text),
        "condition_latents": condition,
        "kv_cache": kept_for(len(x)),
        "seq_len": int(grid[0].prod()),
        "encoder_hidden_states_image": text[:, :2].repeat(1, 1, 80),
        "return_dict": False,
    }
    known = {"reference_grid_sizes": grid, "origin_len": 5, "origin_area": [64, 64]}
    with torch.compiler.set_stance("force_eager"):
        model(driving, t, kv_cache_mode="extract", offset_grid_sizes=grid, **common)
        out = model(list(x), t, kv_cache_mode="cached", **known, **common)
    return torch.stack(out[0])


MORE_VIDEOS = specimens(
    Specimen(
        cls="AllegroTransformer3DModel",
        settings={
            **TEXT_TO_VIDEO,
            "cross_attention_dim": 16,
            "sample_height": 8,
            "sample_width": 8,
            "sample_frames": 2,
            "caption_channels": WIDTH,
        },
        latent=VIDEO,
        call=masked,
    ),
    Specimen(
        cls="CosmosTransformer3DModel",
        settings={
            **TEXT_TO_VIDEO,
            "attention_head_dim": 12,
            "mlp_ratio": 2,
            "text_embed_dim": WIDTH,
            "adaln_lora_dim": 4,
            "max_size": (4, 16, 16),
            "concat_padding_mask": False,  # resizing it takes torchvision
        },
        latent=VIDEO,
        call=cosmos,
    ),
    Specimen(
        cls="WanVACETransformer3DModel",
        settings={**WAN, "vace_layers": [0, 2], "vace_in_channels": 4},
        latent=VIDEO,
        call=vace,
    ),
    Specimen(
        cls="WanAnimateTransformer3DModel",
        settings={
            **WAN,
            "in_channels": 12,
            "latent_channels": 4,
            "image_dim": WIDTH,
            "motion_encoder_channel_sizes": {"4": 8, "8": 8, "16": 8},
            "motion_encoder_size": 16,
            "motion_style_dim": 8,
            "motion_dim": 4,
            "motion_encoder_dim": 16,
            "face_encoder_hidden_dim": 16,
            "face_encoder_num_heads": 2,
            "inject_face_latents_blocks": 2,
        },
        latent=VIDEO,
        call=animate,
    ),
    Specimen(
        cls="SanaVideoTransformer3DModel",
        settings={
            **TEXT_TO_VIDEO,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": 16,
            "caption_channels": WIDTH,
            "sample_size": 8,
            "rope_max_seq_len": 32,
        },
        latent=VIDEO,
        call=masked,
    ),
    Specimen(
        cls="EasyAnimateTransformer3DModel",
        settings={
            **TEXT_TO_VIDEO,
            "attention_head_dim": 16,
            "patch_size": 2,
            "sample_width": 8,
            "sample_height": 8,
            "mmdit_layers": 2,
            "text_embed_dim": WIDTH,
            "time_embed_dim": 8,
        },
        latent=VIDEO,
        call=plain,
    ),
    Specimen(
        cls="MotifVideoTransformer3DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "num_single_layers": 3,
            "num_decoder_layers": 1,
            "mlp_ratio": 2.0,
            "text_embed_dim": WIDTH,
            "rope_axes_dim": (2, 4, 2),
        },
        latent=VIDEO,
        call=masked,
    ),
    Specimen(
        cls="Kandinsky5Transformer3DModel",
        settings={
            "in_visual_dim": 4,
            "out_visual_dim": 4,
            "in_text_dim": WIDTH,
            "in_text_dim2": WIDTH,
            "time_dim": 8,
            "model_dim": 16,
            "ff_dim": 32,
            "num_text_blocks": 1,
            "num_visual_blocks": 4,
            "axes_dims": (4, 2, 2),
        },
        latent=VIDEO,
        call=kandinsky,
    ),
    Specimen(
        cls="Kandinsky6SRTransformer3DModel",
        settings={
            "in_visual_dim": 4,
            "out_visual_dim": 4,
            "time_dim": 8,
            "patch_size": (1, 1, 1),
            "model_dim": 32,
            "ff_dim": 32,
            "num_visual_blocks": 4,
            "axes_dims": (4, 6, 6),
        },
        latent=VIDEO,
        call=kandinsky_sr,
    ),
    Specimen(
        cls="AnyFlowTransformer3DModel",
        settings={**WAN, "attention_head_dim": 12},
        latent=VIDEO,
        call=anyflow,
    ),
    Specimen(
        cls="AnyFlowFARTransformer3DModel",
        settings={**WAN, "attention_head_dim": 12, "chunk_partition": (1, 1)},
        latent=VIDEO,
        call=anyflow_far,
    ),
    Specimen(
        cls="HeliosTransformer3DModel",
        settings={
            **{key: value for key, value in WAN.items() if key != "rope_max_seq_len"},
            "attention_head_dim": 12,
            "rope_dim": (4, 4, 4),
        },
        latent=VIDEO,
        call=helios,
    ),
    Specimen(
        cls="SanaWMTransformer3DModel",
        settings={
            "in_channels": 4,
            "num_layers": 4,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "softmax_every_n": 2,
            "linear_head_dim": 16,
            "chunk_plucker_channels": 6,
            "chunk_plucker_post_attn_blocks": 1,
            "image_size": 8,
            "caption_channels": WIDTH,
        },
        latent=VIDEO,
        call=sana_wm,
        rounding=1e-4,  # its linear attention divides by sums that random weights leave small
    ),
    Specimen(
        cls="SanaWMLTX2RefinerTransformer3DModel",
        settings={
            **TEXT_TO_VIDEO,
            "cross_attention_dim": 16,
            "audio_in_channels": 4,
            "audio_out_channels": 4,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 4,
            "audio_cross_attention_dim": 8,
            "caption_channels": WIDTH,
        },
        latent=PACKED,
        call=sana_wm_refiner,
    ),
    Specimen(
        cls="WanAnimate2Transformer3DModel",
        settings={
            "text_len": 8,
            "in_dim": 8,
            "dim": 32,
            "ffn_dim": 32,
            "freq_dim": 16,
            "text_dim": WIDTH,
            "out_dim": 4,
            "num_heads": 2,
            "num_layers": 4,
        },
        latent=VIDEO,
        call=wan_animate2,
        before=1,
        apart=False,
    ),
)
