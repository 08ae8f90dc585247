"""The tiny models again, with pictures of some hundred tokens that are no squares: attention worth leaving out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tiny_models import TINY_MODELS, TinyModel

from outpace.accel.methods.adaspa import AdaSpa

PICTURE, CLIP, PACKED = (1, 8, 12), (4, 6, 8), (2, 6, 8)
"""Grids of tokens along time, height and width."""
LATENTS = {3: (4, 16, 24), 4: (4, 4, 12, 16), 2: (96, 4)}
"""By the number of axes of a tiny model's latents: patches are 2 x 2, packed latents are tokens already."""
SQUARE = "DiTTransformer2DModel"
"""Its pictures are squares of one size."""
LARGER_SETTINGS: dict[str, dict[str, Any]] = {
    "DiTTransformer2DModel": {"sample_size": 16},
    "SD3Transformer2DModel": {"pos_embed_max_size": 16},
    "AuraFlowTransformer2DModel": {"pos_embed_max_size": 144},
    "CogView3PlusTransformer2DModel": {"pos_embed_max_size": 16},
    "CogVideoXTransformer3DModel": {"sample_width": 16, "sample_height": 12, "sample_frames": 13},
    "ConsisIDTransformer3DModel": {"sample_width": 16, "sample_height": 12, "sample_frames": 13},
}


def larger(cls: str) -> TinyModel:
    """The tiny model of class `cls` with larger latents."""
    tiny = TINY_MODELS[cls]
    latent = (4, 16, 16) if cls == SQUARE else LATENTS[len(tiny.latent)]
    return replace(tiny, settings={**tiny.settings, **LARGER_SETTINGS.get(cls, {})}, latent=latent)


@dataclass(frozen=True)
class Place:
    """Where the tokens of one self-attention lie."""

    grid: tuple[int, int, int]
    text: str
    """"start", "end", or "none"."""
    words: int = 5
    """Tokens beside the grid: of the text, and what stands there for padding."""
    history: int = 0
    """Tokens of frames before the grid that are not denoised; where there are any the grid is not tiled."""

    @property
    def first(self) -> int:
        """The first token of the grid."""
        return self.history + (self.words if self.text == "start" else 0)

    @property
    def picture(self) -> int:
        """Tokens of the grid."""
        frames, height, width = self.grid
        return frames * height * width


WITH_REGISTERS = 8
PLACES: dict[str, Place] = {
    SQUARE: Place((1, 8, 8), "none", 0),
    "FluxTransformer2DModel": Place(PICTURE, "start"),
    "BriaTransformer2DModel": Place(PICTURE, "start"),
    "LongCatImageTransformer2DModel": Place(PICTURE, "start"),
    "OvisImageTransformer2DModel": Place(PICTURE, "start"),
    "Flux2Transformer2DModel": Place(PICTURE, "start"),
    "ChromaTransformer2DModel": Place(PICTURE, "start"),
    "WanTransformer3DModel": Place(CLIP, "none", 0),
    "SkyReelsV2Transformer3DModel": Place(CLIP, "none", 0),
    "ChronoEditTransformer3DModel": Place(CLIP, "none", 0),
    "HunyuanVideoTransformer3DModel": Place(CLIP, "end"),
    "HunyuanVideoFramepackTransformer3DModel": Place(CLIP, "end", 5 + 1, history=64),
    "HunyuanImageTransformer2DModel": Place(PICTURE, "end"),
    "HunyuanVideo15Transformer3DModel": Place(CLIP, "end", 5 + 2 + 2),
    "CogVideoXTransformer3DModel": Place(CLIP, "start"),
    "ConsisIDTransformer3DModel": Place(CLIP, "start"),
    "SD3Transformer2DModel": Place(PICTURE, "end"),
    "PixArtTransformer2DModel": Place(PICTURE, "none", 0),
    "QwenImageTransformer2DModel": Place(PICTURE, "start"),
    "LTXVideoTransformer3DModel": Place(PACKED, "none", 0),
    "ZImageTransformer2DModel": Place(PICTURE, "end", 32),
    "Lumina2Transformer2DModel": Place(PICTURE, "start"),
    "MochiTransformer3DModel": Place(CLIP, "end"),
    "AuraFlowTransformer2DModel": Place(PICTURE, "start", WITH_REGISTERS + 5),
    "CogView4Transformer2DModel": Place(PICTURE, "start"),
    "CogView3PlusTransformer2DModel": Place(PICTURE, "start"),
}
"""Every class whose attention can be made sparse. Sana's is linear."""


def adaspa(**changes: Any) -> AdaSpa:
    """Blocks of 16 and no threshold of size or gain: as sparse as tiny models can be. Searches by schedule only."""
    settings = {"block": 16, "min_tokens": 1, "min_gain": 0.0, "searches": (0.1, 0.5), "slack": 0.0}
    return AdaSpa(**{**settings, **changes})
