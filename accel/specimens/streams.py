"""Tiny transformers that make several things at once, or whose blocks carry the batch elsewhere than in front.

Where a video has sound, the latents of a specimen hold both: its video's tokens first, its sound's after them.
"""

from __future__ import annotations

import torch
from torch import nn

from .pictures import plain
from .specimen import HEADS, IMAGE, PACKED, TEXT_TO_VIDEO, VIDEO, WIDTH, Specimen, positions, rectangle, specimens

SOUND = 8
"""Tokens of sound beside the 16 of the video."""


def apart(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of video and sound."""
    return x[:, :-SOUND], x[:, -SOUND:]


def ltx2(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    video, audio = apart(x)
    height, width = rectangle(video.shape[1] // 2)
    return torch.cat(
        model(
            hidden_states=video,
            audio_hidden_states=audio,
            encoder_hidden_states=text,
            audio_encoder_hidden_states=text.roll(1, 1),
            timestep=t,
            sigma=t / 1000,
            encoder_attention_mask=torch.ones(text.shape[:2]),
            audio_encoder_attention_mask=torch.ones(text.shape[:2]),
            num_frames=2,
            height=height,
            width=width,
            audio_num_frames=audio.shape[1],
            return_dict=False,
        ),
        1,
    )


def minimax_h3(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    video, audio = apart(x)
    kinds = torch.tensor([1] * text.shape[1] + [2] * SOUND + [0] * video.shape[1])  # text, sound, video
    ids = torch.cat([torch.zeros(text.shape[1] + SOUND, 3), positions(video.shape[1], 3)])
    ids[:, 0] = torch.arange(len(ids))
    # Video and sound step through schedules of their own; the text has none.
    times = torch.stack([t[0], 0.5 * t[0]]) / 1000
    made = model(
        hidden_states=video,
        audio_hidden_states=audio,
        encoder_hidden_states=text,
        timestep=times,
        timestep_indices=(kinds == 2).long(),
        token_tags=kinds,
        position_ids=ids,
        video_indices=(kinds == 0).nonzero()[:, 0],
        audio_indices=(kinds == 2).nonzero()[:, 0],
        text_indices=(kinds == 1).nonzero()[:, 0],
        return_dict=False,
    )
    return torch.cat(made, 1)


def kandinsky6(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    video, audio = apart(x)
    grid = video.reshape(len(x), 1, 4, 4, 4)
    made = model(
        hidden_states=grid,
        encoder_hidden_states=text,
        pooled_projections=text.mean(1),
        timestep=t,
        audio_hidden_states=audio,
        return_dict=False,
    )
    return torch.cat([made[0].reshape(video.shape), made[1]], 1)


def cosmos3(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    # One sample a call: its tokens are packed without a batch. A batch is several calls.
    rows = []
    for sample, time, words in zip(x, t, text, strict=True):
        video, audio = apart(sample[None])
        made, told = video.shape[1], words.shape[0]
        length = told + made + SOUND
        seen, heard = torch.arange(told, told + made), torch.arange(told + made, length)
        places = torch.zeros(3, length, dtype=torch.long)
        places[0] = torch.arange(length)
        video_out, audio_out, _ = model(
            input_ids=(words.abs().sum(1) * 1000).long() % 20,
            text_indexes=torch.arange(told),
            position_ids=places,
            und_len=told,
            sequence_length=length,
            vision_tokens=[video.transpose(1, 2).reshape(1, 4, 1, 4, 4)],
            vision_token_shapes=[(1, 4, 4)],
            vision_sequence_indexes=seen,
            vision_mse_loss_indexes=seen,
            vision_timesteps=time.expand(made),
            vision_noisy_frame_indexes=[torch.tensor([0])],
            sound_tokens=[audio[0].T],
            sound_token_shapes=[(SOUND, 1, 1)],
            sound_sequence_indexes=heard,
            sound_mse_loss_indexes=heard,
            sound_timesteps=time.expand(SOUND),
            sound_noisy_frame_indexes=[torch.arange(SOUND)],
            return_dict=False,
        )
        picture = video_out[0].reshape(4, made).T
        rows.append(torch.cat([picture, audio_out[0].reshape(4, SOUND).T]))
    return torch.stack(rows)


def ernie(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    lengths = torch.full((len(x),), text.shape[1])
    return model(x, t, text, lengths, return_dict=False)[0]


def flux3(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return plain(
        model,
        x,
        t / 1000,
        text,
        img_ids=positions(x.shape[1], 4),
        txt_ids=torch.zeros(text.shape[1], 4),
        image_cond_hidden_states=torch.full_like(x[:, :4], 0.5),
        image_cond_ids=positions(4, 4),
    )


def proteina(model: nn.Module, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    # Three coordinates of a residue's backbone and four numbers for the rest of it.
    given = torch.zeros(x.shape[:2], dtype=torch.bool)
    made = model(
        bb_ca=x[..., :3],
        local_latents=x[..., 3:],
        bb_ca_time=1 - t / 1000,
        local_latents_time=1 - t / 1000,
        padding_mask=torch.ones(x.shape[:2], dtype=torch.bool),
        conditioning={"is_in_context_conditioning": given, "supports_local_latent": ~given},
        return_dict=False,
    )
    return torch.cat(made[:2], -1)


STREAMS = specimens(
    Specimen(
        cls="RFD4ProteinaTransformer",
        settings={
            "nlayers": 4,
            "token_dim": 16,
            "nheads": 2,
            "dim_cond": 8,
            "pair_repr_dim": 8,
            "latent_dim": 4,
            "t_emb_dim": 8,
            "xt_pair_dist_dim": 4,
            "feats_seq": ("xt_bb_ca", "xt_local_latents"),
            "feats_cond_seq": ("time_emb_bb_ca", "time_emb_local_latents"),
            "feats_pair_repr": ("xt_bb_ca_pair_dists",),
            "feats_pair_cond": ("time_emb_bb_ca", "time_emb_local_latents"),
            "tri_mult_c": 8,
        },
        latent=(12, 7),
        call=proteina,
    ),
    Specimen(
        cls="LTX2VideoTransformer3DModel",
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
        latent=(16 + SOUND, 4),
        call=ltx2,
    ),
    Specimen(
        cls="MiniMaxH3Transformer3DModel",
        settings={
            **HEADS,
            "hidden_size": 16,
            "num_layers": 4,
            "num_refiner_layers": 1,
            "ffn_dim": 32,
            "in_channels": 4,
            "audio_in_channels": 4,
            "patch_size": (1, 1, 1),
            "text_dim": WIDTH,
            "freq_dim": 8,
            "time_embed_hidden_dim": 16,
            "time_embed_dim": 8,
            "rope_freq_dim": 1,
        },
        latent=(16 + SOUND, 4),
        call=minimax_h3,
    ),
    Specimen(
        cls="Kandinsky6Transformer3DModel",
        settings={
            "in_visual_dim": 4,
            "out_visual_dim": 4,
            "in_text_dim": WIDTH,
            "in_text_dim2": WIDTH,
            "time_dim": 8,
            "patch_size": (1, 1, 1),
            "model_dim": 16,
            "ff_dim": 32,
            "num_text_blocks": 1,
            "num_visual_blocks": 4,
            "axes_dims": (4, 2, 2),
            "visual_cond": False,
            "in_audio_dim": 4,
            "out_audio_dim": 4,
            "model_dim_a": 16,
            "time_dim_a": 8,
            "ff_dim_a": 32,
            "axes_dims_a": (4, 2, 2),
        },
        latent=(16 + SOUND, 4),
        call=kandinsky6,
    ),
    Specimen(
        cls="Cosmos3OmniTransformer",
        settings={
            "head_dim": 12,
            "hidden_size": 24,
            "intermediate_size": 32,
            "latent_channel": 4,
            "latent_patch_size": 1,
            "patch_latent_dim": 4,
            "num_attention_heads": 2,
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "rope_axes_dim": [2, 2, 2],
            "vocab_size": 20,
            "sound_dim": 4,
            "sound_gen": True,
        },
        latent=(16 + SOUND, 4),
        call=cosmos3,
        apart=False,
    ),
    Specimen(
        cls="ErnieImageTransformer2DModel",
        settings={
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_layers": 4,
            "ffn_hidden_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "patch_size": 2,
            "text_in_dim": WIDTH,
            "rope_axes_dim": (4, 2, 2),
        },
        latent=IMAGE,
        call=ernie,
    ),
    Specimen(
        cls="LatteTransformer3DModel",
        settings={
            **TEXT_TO_VIDEO,
            "num_layers": 2,
            "cross_attention_dim": 16,
            "caption_channels": WIDTH,
            "sample_size": 8,
            "patch_size": 2,
            "activation_fn": "gelu-approximate",
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "norm_eps": 1e-6,
            "video_length": 2,
        },
        latent=VIDEO,
        call=plain,
    ),
    Specimen(
        cls="Flux3Transformer2DModel",
        settings={
            **HEADS,
            "in_channels": 4,
            "cond_in_channels": 4,
            "num_layers": 2,
            "num_single_layers": 3,
            "joint_attention_dim": WIDTH,
            "timestep_channels": 8,
            "axes_dims_rope": (2, 2, 2, 2),
        },
        latent=PACKED,
        call=flux3,
    ),
)
