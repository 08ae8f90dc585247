"""How each transformer class is called: inputs of the right shapes, for counting on the meta device without weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .signature import SIGNATURES, Config, Latent, Patch, Signature

_GLYPHS, _IMAGE_TOKENS = 256, 729
"""What HunyuanVideo 1.5 gets beside its prompt: text to be written in the clip, and a picture's features (or zeros)."""


def _register(signature: Signature, *classes: str) -> None:
    for name in classes:
        SIGNATURES.add(name, signature)


def _packed(config: Config, latent: Latent) -> Tensor:
    return torch.empty(1, latent.tokens, config["in_channels"])


def _picture(config: Config, latent: Latent) -> Tensor:
    return torch.empty(1, config["in_channels"], latent.height, latent.width)


def _clip(config: Config, latent: Latent) -> Tensor:
    return torch.empty(1, config["in_channels"], latent.frames, latent.height, latent.width)


def _text(config: Config, latent: Latent, width: str) -> Tensor:
    return torch.empty(1, latent.text, config[width])


def _square(config: Config) -> Patch:
    return 1, config["patch_size"], config["patch_size"]


def _two_by_two(_: Config) -> Patch:
    return 1, 2, 2


def _cube(config: Config) -> Patch:
    return config.get("patch_size_t") or 1, config["patch_size"], config["patch_size"]


def _tokens(config: Config, latent: Latent) -> dict[str, Any]:
    axes = len(config["axes_dims_rope"])
    given: dict[str, Any] = {
        "hidden_states": _packed(config, latent),
        "encoder_hidden_states": _text(config, latent, "joint_attention_dim"),
        "timestep": torch.empty(1),
        "img_ids": torch.empty(latent.tokens, axes),
        "txt_ids": torch.empty(latent.text, axes),
    }
    if config.get("guidance_embeds"):
        given["guidance"] = torch.empty(1)
    return given


def _flux(config: Config, latent: Latent) -> dict[str, Any]:
    return {**_tokens(config, latent), "pooled_projections": torch.empty(1, config["pooled_projection_dim"])}


def _chroma(config: Config, latent: Latent) -> dict[str, Any]:
    return {**_tokens(config, latent), "attention_mask": torch.empty(1, latent.text + latent.tokens)}


def _wan(config: Config, latent: Latent) -> dict[str, Any]:
    given = {
        "hidden_states": _clip(config, latent),
        "encoder_hidden_states": _text(config, latent, "text_dim"),
        "timestep": torch.empty(1, latent.tokens) if latent.time_per_token else torch.empty(1),
    }
    if config.get("image_dim"):
        given["encoder_hidden_states_image"] = torch.empty(
            1, config.get("pos_embed_seq_len") or 257, config["image_dim"]
        )
    return given


def _hunyuan_video(config: Config, latent: Latent) -> dict[str, Any]:
    given = {
        "hidden_states": _clip(config, latent),
        "encoder_hidden_states": _text(config, latent, "text_embed_dim"),
        "encoder_attention_mask": torch.empty(1, latent.text, dtype=torch.long),
        "pooled_projections": torch.empty(1, config["pooled_projection_dim"]),
        "timestep": torch.empty(1),
    }
    if config["guidance_embeds"]:
        given["guidance"] = torch.empty(1)
    return given


def _cogvideox(config: Config, latent: Latent) -> dict[str, Any]:
    # One patch may span several frames; the pipeline pads the clip up to whole patches.
    frames = latent.grid[0] * latent.patch[0]
    given = {
        "hidden_states": torch.empty(1, frames, config["in_channels"], latent.height, latent.width),
        "encoder_hidden_states": _text(config, latent, "text_embed_dim"),
        "timestep": torch.empty(1),
    }
    if config.get("ofs_embed_dim"):
        given["ofs"] = torch.empty(1)
    return given


def _sd3(config: Config, latent: Latent) -> dict[str, Any]:
    return {
        "hidden_states": _picture(config, latent),
        "encoder_hidden_states": _text(config, latent, "joint_attention_dim"),
        "pooled_projections": torch.empty(1, config["pooled_projection_dim"]),
        "timestep": torch.empty(1),
    }


def _qwen(config: Config, latent: Latent) -> dict[str, Any]:
    return {
        "hidden_states": _packed(config, latent),
        "encoder_hidden_states": _text(config, latent, "joint_attention_dim"),
        "encoder_hidden_states_mask": None,
        "timestep": torch.empty(1),
        "img_shapes": [[latent.grid]],
    }


def _ltx(config: Config, latent: Latent) -> dict[str, Any]:
    frames, rows, columns = latent.grid
    return {
        "hidden_states": _packed(config, latent),
        "encoder_hidden_states": _text(config, latent, "caption_channels"),
        "encoder_attention_mask": torch.empty(1, latent.text),
        "timestep": torch.empty(1),
        "num_frames": frames,
        "height": rows,
        "width": columns,
    }


def _captioned(config: Config, latent: Latent) -> dict[str, Any]:
    return {
        "hidden_states": _picture(config, latent),
        "encoder_hidden_states": _text(config, latent, "caption_channels"),
        "encoder_attention_mask": torch.empty(1, latent.text),
        "timestep": torch.empty(1),
    }


def _pixart(config: Config, latent: Latent) -> dict[str, Any]:
    added = {"resolution": torch.empty(1, 2), "aspect_ratio": torch.empty(1, 1)}
    wanted = config.get("use_additional_conditions")
    wanted = config["sample_size"] == 128 if wanted is None else wanted
    return {**_captioned(config, latent), "added_cond_kwargs": added if wanted else dict.fromkeys(added)}


def _auraflow(config: Config, latent: Latent) -> dict[str, Any]:
    return {
        "hidden_states": _picture(config, latent),
        "encoder_hidden_states": _text(config, latent, "joint_attention_dim"),
        "timestep": torch.empty(1),
    }


def _cogview(config: Config, latent: Latent) -> dict[str, Any]:
    sizes = dict.fromkeys(("original_size", "target_size", "crop_coords"), torch.empty(1, 2))
    return {
        "hidden_states": _picture(config, latent),
        "encoder_hidden_states": _text(config, latent, "text_embed_dim"),
        "timestep": torch.empty(1),
        **sizes,
    }


def _hunyuan_image(config: Config, latent: Latent) -> dict[str, Any]:
    given = {
        "hidden_states": _picture(config, latent),
        "encoder_hidden_states": _text(config, latent, "text_embed_dim"),
        "encoder_attention_mask": torch.empty(1, latent.text, dtype=torch.long),
        "timestep": torch.empty(1),
    }
    if config["guidance_embeds"]:
        given["guidance"] = torch.empty(1)
    return given


def _hunyuan_video15(config: Config, latent: Latent) -> dict[str, Any]:
    given = {
        "hidden_states": _clip(config, latent),
        "encoder_hidden_states": _text(config, latent, "text_embed_dim"),
        "encoder_attention_mask": torch.empty(1, latent.text, dtype=torch.bool),
        "encoder_hidden_states_2": torch.empty(1, _GLYPHS, config["text_embed_2_dim"]),
        "encoder_attention_mask_2": torch.empty(1, _GLYPHS, dtype=torch.bool),
        "image_embeds": torch.empty(1, _IMAGE_TOKENS, config["image_embed_dim"]),
        "timestep": torch.empty(1),
    }
    if config.get("use_meanflow"):
        given["timestep_r"] = torch.empty(1)
    return given


def _lumina2(config: Config, latent: Latent) -> dict[str, Any]:
    return {
        "hidden_states": _picture(config, latent),
        "encoder_hidden_states": _text(config, latent, "cap_feat_dim"),
        # Its values lay out the positions: a real one.
        "encoder_attention_mask": torch.ones(1, latent.text, dtype=torch.bool, device="cpu"),
        "timestep": torch.empty(1),
    }


def _z_image(config: Config, latent: Latent) -> dict[str, Any]:
    return {
        "x": [torch.empty(config["in_channels"], latent.frames, latent.height, latent.width)],
        "t": torch.empty(1),
        "cap_feats": [torch.empty(latent.text, config["cap_feat_dim"])],
    }


def _dit(config: Config, latent: Latent) -> dict[str, Any]:
    label = torch.empty(1, dtype=torch.long)
    return {"hidden_states": _picture(config, latent), "timestep": label, "class_labels": label}


def _never(_: Config) -> bool:
    return False


_register(Signature(inputs=_flux, patch=_two_by_two, guided=_never), "FluxTransformer2DModel")
_register(Signature(inputs=_tokens, patch=_two_by_two, guided=_never), "Flux2Transformer2DModel")
_register(Signature(inputs=_flux, patch=_two_by_two, together=True), "BriaTransformer2DModel")
_register(Signature(inputs=_tokens, patch=_two_by_two), "LongCatImageTransformer2DModel", "OvisImageTransformer2DModel")
_register(Signature(inputs=_chroma, patch=_two_by_two), "ChromaTransformer2DModel")
_register(
    Signature(inputs=_wan, patch=lambda config: tuple(config["patch_size"]), video=True),
    "WanTransformer3DModel",
    "SkyReelsV2Transformer3DModel",
    "ChronoEditTransformer3DModel",
)
_register(
    Signature(
        inputs=_hunyuan_video,
        patch=_cube,
        video=True,
        text=256,
        guided=lambda config: not config["guidance_embeds"],
    ),
    "HunyuanVideoTransformer3DModel",
)
_register(
    Signature(inputs=_cogvideox, patch=_cube, video=True, text=226, together=True),
    "CogVideoXTransformer3DModel",
    "ConsisIDTransformer3DModel",
)
_register(Signature(inputs=_sd3, patch=_square, text=333, together=True), "SD3Transformer2DModel")
_register(Signature(inputs=_qwen, patch=_two_by_two), "QwenImageTransformer2DModel")
_register(Signature(inputs=_ltx, patch=_cube, video=True, text=128, together=True), "LTXVideoTransformer3DModel")
_register(Signature(inputs=_captioned, patch=_square, text=300, together=True), "SanaTransformer2DModel")
_register(Signature(inputs=_pixart, patch=_square, text=300, together=True), "PixArtTransformer2DModel")
_register(Signature(inputs=_auraflow, patch=_square, text=256, together=True), "AuraFlowTransformer2DModel")
_register(Signature(inputs=_cogview, patch=_square, text=224, together=True), "CogView3PlusTransformer2DModel")
_register(Signature(inputs=_cogview, patch=_square, text=224), "CogView4Transformer2DModel")
_register(
    Signature(inputs=_hunyuan_image, patch=lambda config: (1, *config["patch_size"]), text=1000),
    "HunyuanImageTransformer2DModel",
)
_register(Signature(inputs=_hunyuan_video15, patch=_cube, video=True, text=1000), "HunyuanVideo15Transformer3DModel")
_register(Signature(inputs=_lumina2, patch=_square, text=256), "Lumina2Transformer2DModel")
_register(
    Signature(
        inputs=_z_image,
        patch=lambda config: (1, config["all_patch_size"][0], config["all_patch_size"][0]),
        together=True,
    ),
    "ZImageTransformer2DModel",
)
_register(Signature(inputs=_dit, patch=_square, text=0, together=True), "DiTTransformer2DModel")
