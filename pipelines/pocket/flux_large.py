"""The `flux-large` pocket: the scenes of `flux` at 256 x 256 pixels: 1024 image tokens of width 256 through 24 blocks.

At this size a block costs what it costs in earnest, and a skipped one shows on the clock. The autoencoder and the text
encoders are those of the shipped `flux` pocket; only the transformer (29.6 M parameters, 60 MB in bfloat16, so not
shipped) is trained. Nobody has trained it to the end yet: see docs/flux_large.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from . import scenes
from .flux import FluxRecipe, Texts, assemble, encode_scenes, train_denoiser
from .store import load_pocket
from .training import FitSettings, first_process_first

SIDE = 256
LARGE = FluxRecipe(
    denoiser=FitSettings(
        steps=24_000,
        batch=8,
        rate=1e-3,
        muon_rate=2e-3,
        average=0.999,
        warmup=100,
        seed=31,
        autocast=False,
        fused_attention=True,
    ),
    scenes=2048,
    heads=8,
    head_width=32,
    rope_axes=(8, 12, 12),
)


def load_parts(source: str | Path = "flux", device: torch.device | str = "cpu") -> tuple[Any, Texts]:
    """The frozen autoencoder and text encoders of the `flux` pocket, or of a folder that its training wrote."""
    pipe = load_pocket(source)
    texts = Texts(
        clip=pipe.text_encoder.to(device).eval(),
        clip_tokenizer=pipe.tokenizer,
        t5=pipe.text_encoder_2.to(device).eval(),
        t5_tokenizer=pipe.tokenizer_2,
    )
    return pipe.vae.to(device).eval(), texts


def train_flux_large(
    folder: Path,
    recipe: FluxRecipe = LARGE,
    *,
    device: str = "cpu",
    progress: bool = True,
    parts: str | Path = "flux",
) -> tuple[Any, dict[str, Any]]:
    """Train the transformer, or continue where `folder` stands; the pipeline and the facts for its card.

    Args:
        parts: where the autoencoder and the text encoders come from: a pocket, or a folder with a trained one.
    """
    place = torch.device(device)
    folder.mkdir(parents=True, exist_ok=True)
    autoencoder, texts = load_parts(parts, place)
    with first_process_first():
        held = encode_scenes(recipe, autoencoder, texts, folder, side=SIDE)
    denoiser, result = train_denoiser(recipe, held, folder, place, progress=progress)
    facts: dict[str, Any] = {
        "parts": {"denoiser": result},
        "autoencoder_and_text_encoders": f"those of '{parts}', frozen",
        "share_of_recipe_trained": round(result.steps / LARGE.denoiser.steps, 6),
    }
    return assemble(denoiser, autoencoder, texts), facts


def check_large_scenes(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> list[dict[str, float]]:
    """`scenes.check_scenes` of larger pictures (Y, X, 3), shrunk to the size that it reads."""
    stacked = torch.from_numpy(np.stack([np.asarray(p, dtype=np.float32) for p in pictures])).permute(0, 3, 1, 2)
    small = F.interpolate(stacked, size=(scenes.SIDE, scenes.SIDE), mode="area").permute(0, 2, 3, 1)
    return scenes.check_scenes(list(small.numpy()), captions)
