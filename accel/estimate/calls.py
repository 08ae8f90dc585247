"""How each transformer class is called: inputs of the right shapes, for counting on the meta device without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...registry import Registry

Config = Mapping[str, Any]
Patch = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Latent:
    """One sample as the denoiser gets it, before it is cut into tokens."""

    frames: int
    """T: latent frames; 1 for pictures."""
    height: int
    """Y: latent rows."""
    width: int
    """X: latent columns."""
    text: int
    """Text tokens."""
    patch: Patch
    """Latent frames, rows and columns that make one token."""
    time_per_token: bool = False
    """True where every token has a time of its own (Wan 2.2 5B)."""

    @property
    def grid(self) -> Patch:
        """Tokens along frames, rows and columns."""
        (t, y, x), (pt, py, px) = (self.frames, self.height, self.width), self.patch
        return -(-t // pt), y // py, x // px

    @property
    def tokens(self) -> int:
        """Tokens that become the picture."""
        t, y, x = self.grid
        return t * y * x


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """One way of calling a transformer, shared by the classes it is registered for."""

    inputs: Callable[[Config, Latent], dict[str, Any]]
    """Keyword arguments of one call, with a batch of one, on the default device."""
    patch: Callable[[Config], Patch]
    """Latent frames, rows and columns that make one token."""
    video: bool = False
    """True where it makes clips."""
    text: int = 512
    """Text tokens of its pipeline's longest prompt, where nobody says otherwise."""
    guided: Callable[[Config], bool] = lambda _: True
    """True where its pipeline calls it twice a step, for classifier-free guidance."""


SIGNATURES: Registry[Signature] = Registry("transformer class")


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


def _dit(config: Config, latent: Latent) -> dict[str, Any]:
    label = torch.empty(1, dtype=torch.long)
    return {"hidden_states": _picture(config, latent), "timestep": label, "class_labels": label}


def _never(_: Config) -> bool:
    return False


_register(Signature(inputs=_flux, patch=_two_by_two, guided=_never), "FluxTransformer2DModel")
_register(Signature(inputs=_tokens, patch=_two_by_two, guided=_never), "Flux2Transformer2DModel")
_register(Signature(inputs=_flux, patch=_two_by_two), "BriaTransformer2DModel")
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
    Signature(inputs=_cogvideox, patch=_cube, video=True, text=226),
    "CogVideoXTransformer3DModel",
    "ConsisIDTransformer3DModel",
)
_register(Signature(inputs=_sd3, patch=_square, text=333), "SD3Transformer2DModel")
_register(Signature(inputs=_qwen, patch=_two_by_two), "QwenImageTransformer2DModel")
_register(Signature(inputs=_ltx, patch=_cube, video=True, text=128), "LTXVideoTransformer3DModel")
_register(Signature(inputs=_captioned, patch=_square, text=300), "SanaTransformer2DModel")
_register(Signature(inputs=_pixart, patch=_square, text=300), "PixArtTransformer2DModel")
_register(Signature(inputs=_auraflow, patch=_square, text=256), "AuraFlowTransformer2DModel")
_register(
    Signature(inputs=_cogview, patch=_square, text=224), "CogView3PlusTransformer2DModel", "CogView4Transformer2DModel"
)
_register(
    Signature(inputs=_hunyuan_image, patch=lambda config: (1, *config["patch_size"]), text=1000),
    "HunyuanImageTransformer2DModel",
)
_register(Signature(inputs=_dit, patch=_square, text=0), "DiTTransformer2DModel")
