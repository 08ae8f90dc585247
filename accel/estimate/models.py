"""Published models as data: the configuration of the denoiser, how much the autoencoder compresses, how it is called.

Configurations are facts read off the config.json that each model is published with, and off the tables of diffusers'
conversion scripts; what is not listed is the default of the diffusers class. Tests compare the parameters of each with
the published size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One denoiser with what its pipeline does around it, without any weights."""

    name: str
    transformer: str
    """Class name in diffusers."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the class; the others keep its defaults."""
    space: int = 8
    """Pixels along a side that make one latent."""
    time: int = 1
    """Frames that make one latent frame, after the first."""
    height: int | None = 1024
    width: int | None = 1024
    """Pixels, unless asked otherwise."""
    frames: int | None = None
    """Frames unless asked otherwise; None for pictures."""
    steps: int = 50
    """Denoising steps unless asked otherwise."""
    calls: int | None = None
    """Calls of the denoiser a step: 2 with classifier-free guidance; None: as its class is used."""
    text: int | None = None
    """Tokens of the longest prompt; None: as its class is used."""
    copies: int = 1
    """Denoisers of this size in memory, of which one runs at a time (Wan 2.2 A14B: 2)."""
    time_per_token: bool = False
    """True where every token has a time of its own."""
    notes: tuple[str, ...] = ()
    """What had to be assumed."""


MODELS: Registry[Model] = Registry("published model")


def _add(name: str, transformer: str, config: Mapping[str, Any] | None = None, **facts: Any) -> None:
    MODELS.add(name, Model(name=name, transformer=transformer, config=config or {}, **facts))


_add("flux.1", "FluxTransformer2DModel", {"guidance_embeds": True}, steps=28)
_add("flux.1-schnell", "FluxTransformer2DModel", {"guidance_embeds": False}, steps=4, text=256)
_add("flux.2", "Flux2Transformer2DModel")
_add(
    "flux.2-klein-4b",
    "Flux2Transformer2DModel",
    {
        "num_layers": 5,
        "num_single_layers": 20,
        "num_attention_heads": 24,
        "joint_attention_dim": 7680,
        "guidance_embeds": False,
    },
    steps=4,
)
_add(
    "flux.2-klein-9b",
    "Flux2Transformer2DModel",
    {"num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288, "guidance_embeds": False},
    steps=4,
)
_add("chroma", "ChromaTransformer2DModel", steps=35)
_add("qwen-image", "QwenImageTransformer2DModel", height=1328, width=1328)
_add("z-image", "ZImageTransformer2DModel")
_add("lumina-2", "Lumina2Transformer2DModel", {"cap_feat_dim": 2304}, steps=30)
_add(
    "dit-xl-2",
    "DiTTransformer2DModel",
    {"out_channels": 8},
    height=256,
    width=256,
    steps=250,
    notes=("diffusers keeps embedders of time and class in every block: 75 million parameters more than the 675",),
)

_SD35 = {"joint_attention_dim": 4096, "pooled_projection_dim": 2048, "qk_norm": "rms_norm"}
_add(
    "sd3.5-medium",
    "SD3Transformer2DModel",
    {
        **_SD35,
        "num_layers": 24,
        "num_attention_heads": 24,
        "caption_projection_dim": 1536,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
    },
    steps=28,
)
_add(
    "sd3.5-large",
    "SD3Transformer2DModel",
    {
        **_SD35,
        "num_layers": 38,
        "num_attention_heads": 38,
        "caption_projection_dim": 2432,
        "pos_embed_max_size": 192,
    },
    steps=28,
)

_WAN13 = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
_add("wan2.1-1.3b", "WanTransformer3DModel", _WAN13, time=4, height=480, width=832, frames=81)
_add("wan2.1-14b", "WanTransformer3DModel", time=4, height=720, width=1280, frames=81)
_add("wan2.2-a14b", "WanTransformer3DModel", time=4, height=720, width=1280, frames=81, steps=40, copies=2)
_add(
    "wan2.2-5b",
    "WanTransformer3DModel",
    {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48},
    space=16,
    time=4,
    height=704,
    width=1280,
    frames=121,
    time_per_token=True,
)
_add("hunyuanvideo", "HunyuanVideoTransformer3DModel", time=4, height=720, width=1280, frames=129)
_add(
    "hunyuanvideo-1.5",
    "HunyuanVideo15Transformer3DModel",
    {"task_type": "t2v", "target_size": 960},
    space=16,
    time=4,
    height=720,
    width=1280,
    frames=121,
)
_add("cogvideox-2b", "CogVideoXTransformer3DModel", time=4, height=480, width=720, frames=49)
_COG5B = {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}
_add("cogvideox-5b", "CogVideoXTransformer3DModel", _COG5B, time=4, height=480, width=720, frames=49)
_COG15 = {"patch_size_t": 2, "patch_bias": False, "sample_height": 300, "sample_width": 300, "sample_frames": 81}
_add("cogvideox1.5-5b", "CogVideoXTransformer3DModel", {**_COG5B, **_COG15}, time=4, height=768, width=1360, frames=81)
_add("ltx", "LTXVideoTransformer3DModel", space=32, time=8, height=512, width=704, frames=161)
_add(
    "ltx-13b",
    "LTXVideoTransformer3DModel",
    {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48},
    space=32,
    time=8,
    height=704,
    width=1216,
    frames=121,
)
