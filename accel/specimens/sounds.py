"""Tiny transformers that make sound."""

from __future__ import annotations

import torch
from torch import nn

from .pictures import plain
from .specimen import HEADS, WIDTH, Specimen, specimens


def ace_step(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t / 1000, text, timestep_r=t / 1000, context_latents=torch.full_like(x, 0.5).repeat(1, 1, 2))


def stable_audio(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(x.shape[2] + 1)[:, None] * torch.ones(1, 8) / 10
    return plain(model, x, t, text, global_hidden_states=text[:, :1], rotary_embedding=(angles.cos(), angles.sin()))


def stable_audio3(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(
        model,
        x,
        t / 1000,
        text,
        global_hidden_states=text.mean(1),
        encoder_attention_mask=torch.ones(text.shape[:2]),
        local_add_cond=torch.full((len(x), 5, x.shape[2]), 0.5),
    )


def longcat_audio(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(
        model,
        x,
        1 - t / 1000,
        text,
        encoder_attention_mask=torch.ones(text.shape[:2], dtype=torch.bool),
        attention_mask=torch.ones(x.shape[:2], dtype=torch.bool),
        latent_cond=torch.full_like(x, 0.5),
    )


def minimax_music(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(model, x, t / 1000, text.mean(1, keepdim=True).expand(-1, x.shape[2], -1))


SOUNDS = specimens(
    Specimen(
        cls="AceStepTransformer1DModel",
        settings={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "in_channels": 12,
            "audio_acoustic_hidden_dim": 4,
            "sliding_window": 4,
            "encoder_hidden_size": WIDTH,
        },
        latent=(16, 4),
        call=ace_step,
    ),
    Specimen(
        cls="StableAudioDiTModel",
        settings={
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "num_key_value_attention_heads": 1,
            "cross_attention_dim": 16,
            "time_proj_dim": 8,
            "global_states_input_dim": WIDTH,
            "cross_attention_input_dim": WIDTH,
        },
        latent=(4, 16),
        call=stable_audio,
    ),
    Specimen(
        cls="StableAudio3DiTModel",
        settings={
            "io_channels": 4,
            "embed_dim": 64,
            "depth": 4,
            "num_heads": 2,
            "cond_token_dim": WIDTH,
            "global_cond_dim": WIDTH,
            "local_add_cond_dim": 5,
            "timestep_features_dim": 8,
            "ff_mult": 2,
            "num_memory_tokens": 3,
        },
        latent=(4, 16),
        call=stable_audio3,
    ),
    Specimen(
        cls="LongCatAudioDiTTransformer",
        settings={"dit_dim": 16, "dit_depth": 4, "dit_heads": 2, "dit_text_dim": WIDTH, "latent_dim": 4},
        latent=(16, 4),
        call=longcat_audio,
    ),
    Specimen(
        cls="MiniMaxMusic3Transformer1DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "condition_dim": WIDTH,
            "num_layers": 4,
            "ff_inner_dim": 32,
            "rotary_dim": 4,
            "fourier_embedding_dim": 8,
        },
        latent=(4, 16),
        call=minimax_music,
    ),
)
