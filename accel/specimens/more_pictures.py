"""Tiny transformers that make pictures from one sequence, or from text of another length at every block."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .pictures import flux, plain
from .specimen import HEADS, IMAGE, PACKED, WIDTH, Specimen, positions, rectangle, specimens


def labelled(text: torch.Tensor, count: int, values: int) -> torch.Tensor:
    """`count` whole numbers below `values` a sample, made of its text: B count."""
    digits = (text.abs().sum((1, 2)) * 1000).long()[:, None] + torch.arange(count)
    return digits % values


def hunyuan_dit(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    tokens = (x.shape[-1] // 2) ** 2
    angles = torch.arange(tokens)[:, None] * torch.ones(1, 8) / 10
    return plain(
        model,
        x,
        t,
        text[:, :4],
        text_embedding_mask=torch.ones(len(x), 4),
        encoder_hidden_states_t5=text[:, 1:].contiguous(),
        text_embedding_mask_t5=torch.ones(len(x), 4),
        image_meta_size=torch.full((len(x), 6), 64.0),
        style=torch.zeros(len(x), dtype=torch.long),
        image_rotary_emb=(angles.cos(), angles.sin()),
    )[:, : x.shape[1]]


def krea2(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return model(
        hidden_states=x,
        encoder_hidden_states=text.unflatten(-1, (2, -1)),
        timestep=t / 1000,
        position_ids=torch.cat([torch.zeros(text.shape[1], 3), positions(x.shape[1], 3)]),
        encoder_attention_mask=torch.ones(text.shape[:2], dtype=torch.bool),
        return_dict=False,
    )[0]


def nucleus(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return model(
        hidden_states=x,
        encoder_hidden_states=text,
        encoder_hidden_states_mask=torch.ones(text.shape[:2], dtype=torch.bool),
        timestep=t / 1000,
        img_shapes=[(1, *rectangle(x.shape[1]))] * len(x),
        return_dict=False,
    )[0]


def omnigen(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    tokens = text.shape[1] + 1 + (x.shape[-1] // 2) ** 2
    return model(
        hidden_states=x,
        timestep=1 - t / 1000,
        input_ids=labelled(text, text.shape[1], 20),
        input_img_latents=[],
        input_image_sizes={},
        attention_mask=torch.ones(len(x), tokens, tokens),
        position_ids=torch.arange(tokens).expand(len(x), -1),
        return_dict=False,
    )[0]


def prx(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t / 1000, text, attention_mask=torch.ones(text.shape[:2], dtype=torch.bool))


def lumina_next(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(32.0)[:, None, None] * torch.ones(1, 32, 4) / 20
    return model(
        hidden_states=x,
        timestep=1 - t / 1000,
        encoder_hidden_states=text,
        encoder_mask=torch.ones(text.shape[:2]),
        image_rotary_emb=torch.polar(torch.ones_like(angles), angles),
        cross_attention_kwargs={},
        return_dict=False,
    )[0][:, : x.shape[1]]


def bria_fibo(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    layers = [text.roll(block, 1)[..., :8] for block in range(5)]
    return flux(model, x, t, text, text_encoder_layers=layers)


def bria_fibo2(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    bundle = torch.stack([text, text.roll(1, 1)], 1)
    mask = torch.ones(text.shape[:2], dtype=torch.bool)
    return model(x, t / 1000, bundle, encoder_attention_mask=mask, return_dict=False)[0]


def hidream(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return model(
        hidden_states=x,
        timesteps=t,
        encoder_hidden_states_t5=text[..., :8],
        encoder_hidden_states_llama3=torch.stack([text[..., 8:], text.roll(1, 1)[..., 8:]]),
        pooled_embeds=text.mean(1)[:, :8],
        return_dict=False,
    )[0]


def ideogram4(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    # Text and picture lie in one sequence: each tensor holds a place for both, and an indicator says which is which.
    words, tokens = text.shape[1], x.shape[1]
    indicator = torch.tensor([3] * words + [2] * tokens).expand(len(x), -1)
    ids = torch.cat([torch.arange(words)[:, None].expand(-1, 3), words + positions(tokens, 3).long()])
    return model(
        hidden_states=torch.cat([x.new_zeros(len(x), words, x.shape[2]), x], 1),
        timestep=1 - t / 1000,
        encoder_hidden_states=torch.cat([text, text.new_zeros(len(x), tokens, text.shape[2])], 1),
        position_ids=ids.expand(len(x), -1, -1),
        segment_ids=torch.ones(len(x), words + tokens, dtype=torch.long),
        indicator=indicator,
        return_dict=False,
    )[0][:, words:]


def glm_image(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(
        model,
        x,
        t,
        text,
        prior_token_id=labelled(text, (x.shape[-1] // 2) ** 2, 10),
        prior_token_drop=torch.zeros(len(x), dtype=torch.bool),
        target_size=torch.full((len(x), 2), 64.0),
        crop_coords=torch.zeros(len(x), 2),
    )


def qwen21(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: Any) -> torch.Tensor:
    height, width = rectangle(x.shape[1])
    slots = x.shape[1] // 4
    mask = torch.tensor([False] * text.shape[1] + [True] * slots).expand(len(x), -1)
    return model(
        hidden_states=x,
        encoder_hidden_states=text,
        timestep=t / 1000,
        img_shapes=[[(1, height, width)]] * len(x),
        img_mask=mask,
        encoder_hidden_states_mask=torch.ones(text.shape[:2], dtype=torch.long),
        return_dict=False,
        **more,
    )[0][:, -x.shape[1] :]


def joyimage(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t, text)


def joyimage_plus(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    # One reference picture beside the one that is made, both as patches of 1 x 2 x 2.
    tokens = x.shape[1]
    patches = x.unflatten(-1, (4, 1, 1, 1)).expand(-1, -1, -1, 1, 2, 2)
    both = torch.cat([patches, torch.full_like(patches, 0.5)], 1)
    shapes = [[(1, *rectangle(tokens)), (1, *rectangle(tokens))]] * len(x)
    mask = torch.ones(text.shape[:2])
    out = plain(model, both, t, text, encoder_hidden_states_mask=mask, shape_list=shapes)
    return out[:, :tokens, :, 0, 0, 0]


MORE_PICTURES = specimens(
    Specimen(
        cls="HunyuanDiT2DModel",
        settings={
            **HEADS,
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 6,
            "hidden_size": 16,
            "cross_attention_dim": WIDTH,
            "cross_attention_dim_t5": WIDTH,
            "pooled_projection_dim": 4,
            "text_len": 4,
            "text_len_t5": 4,
        },
        latent=IMAGE,
        call=hunyuan_dit,
    ),
    Specimen(
        cls="Krea2Transformer2DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "num_layers": 4,
            "num_key_value_heads": 1,
            "intermediate_size": 32,
            "timestep_embed_dim": 8,
            "text_hidden_dim": 8,
            "num_text_layers": 2,
            "text_num_attention_heads": 1,
            "text_num_key_value_heads": 1,
            "text_intermediate_size": 16,
            "num_layerwise_text_blocks": 1,
            "num_refiner_text_blocks": 1,
            "axes_dims_rope": (2, 4, 2),
        },
        latent=PACKED,
        call=krea2,
    ),
    Specimen(
        cls="NucleusMoEImageTransformer2DModel",
        settings={
            **HEADS,
            "patch_size": 1,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 5,
            "num_key_value_heads": 1,
            "joint_attention_dim": WIDTH,
            "axes_dims_rope": (2, 4, 2),
            "num_experts": 4,
            "moe_intermediate_dim": 16,
            # Experts choose tokens; with room for all of them, none is left over to the next sample.
            "capacity_factors": 4.0,
        },
        latent=PACKED,
        call=nucleus,
    ),
    Specimen(
        cls="OmniGenTransformer2DModel",
        settings={
            "in_channels": 4,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 32,
            "num_layers": 4,
            "pad_token_id": 0,
            "vocab_size": 20,
            "time_step_dim": 4,
            "pos_embed_max_size": 16,
            "rope_scaling": {"long_factor": [1, 2, 3, 4], "short_factor": [1, 2, 3, 4]},
        },
        latent=IMAGE,
        call=omnigen,
    ),
    Specimen(
        cls="PRXTransformer2DModel",
        settings={
            "in_channels": 4,
            "context_in_dim": WIDTH,
            "hidden_size": 16,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": 4,
            "axes_dim": [4, 4],
        },
        latent=IMAGE,
        call=prx,
    ),
    Specimen(
        cls="LuminaNextDiT2DModel",
        settings={
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 16,
            "num_layers": 4,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 8,
            "ffn_dim_multiplier": None,
            "cross_attention_dim": WIDTH,
        },
        latent=IMAGE,
        call=lumina_next,
    ),
    Specimen(
        cls="BriaFiboTransformer2DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "num_layers": 2,
            "num_single_layers": 3,
            "joint_attention_dim": WIDTH,
            "text_encoder_dim": 8,
            "axes_dims_rope": [2, 4, 2],
        },
        latent=PACKED,
        call=bria_fibo,
    ),
    Specimen(
        cls="BriaFibo2Transformer2DModel",
        settings={
            "in_channels": 4,
            "patch_size": 2,
            "dim": 16,
            "n_layers": 4,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "cap_feat_dim": WIDTH,
            "injection_layer_ids": (2,),
            "perceiver_num_layers": 1,
            "min_num_gist_tokens": 4,
            "max_num_gist_tokens": 8,
            "gist_step": 4,
            "gist_min_text_len": 4,
            "gist_max_text_len": 8,
            "axes_dims": (2, 4, 2),
            "axes_lens": (64, 32, 32),
        },
        latent=IMAGE,
        call=bria_fibo2,
    ),
    Specimen(
        cls="HiDreamImageTransformer2DModel",
        settings={
            **HEADS,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "num_single_layers": 2,
            "caption_channels": [8, 8],
            "text_emb_dim": 8,
            "num_routed_experts": 2,
            "num_activated_experts": 1,
            "axes_dims_rope": (4, 2, 2),
            "max_resolution": (16, 16),
            "llama_layers": (0, 1, 0, 1),
            "force_inference_output": True,
        },
        latent=IMAGE,
        call=hidream,
    ),
    Specimen(
        cls="Ideogram4Transformer2DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "num_layers": 4,
            "intermediate_size": 32,
            "adaln_dim": 8,
            "llm_features_dim": WIDTH,
            "mrope_section": (2, 1, 1),
        },
        latent=PACKED,
        call=ideogram4,
    ),
    Specimen(
        cls="GlmImageTransformer2DModel",
        settings={
            **HEADS,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 4,
            "text_embed_dim": WIDTH,
            "time_embed_dim": 16,
            "condition_dim": 4,
            "prior_vq_quantizer_codebook_size": 10,
        },
        latent=IMAGE,
        call=glm_image,
    ),
    Specimen(
        cls="QwenImage21Transformer2DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 4,
            "context_in_dim": WIDTH,
            "axes_dims_rope": (2, 4, 2),
        },
        latent=PACKED,
        call=qwen21,
    ),
    Specimen(
        cls="JoyImageEditTransformer3DModel",
        settings={
            "patch_size": [1, 2, 2],
            "in_channels": 4,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "text_dim": WIDTH,
            "num_layers": 4,
            "rope_dim_list": [2, 4, 2],
        },
        latent=(4, 2, 8, 8),
        call=joyimage,
    ),
    Specimen(
        cls="JoyImageEditPlusTransformer3DModel",
        settings={
            "patch_size": [1, 2, 2],
            "in_channels": 4,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "text_dim": WIDTH,
            "num_layers": 4,
            "rope_dim_list": [2, 4, 2],
        },
        latent=PACKED,
        call=joyimage_plus,
    ),
)
