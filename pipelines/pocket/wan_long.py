"""The `wan-long` pocket: clips of 33 frames of 64 x 64 through self-attention over 4352 tokens.

Long enough that attention is most of the work and that leaving parts of it out shows on the clock; trained, so that
what is left out is learnt attention and not noise. It grows as large video models do: small clips, then large ones,
then long ones. The captions and the text encoder are those of the `wan` pocket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import clips
from .clips import Stage
from .store import load_pocket
from .training import FitSettings, first_process_first
from .wan import WanRecipe, assemble, build_denoiser, encode_clips, train_clip_autoencoder, train_denoiser

CEILING = 0.33
"""Of the textured background. It does not move: to remove noise from it is to look at the same place at other times."""

LONG = Stage(frames=33, side=64, ceiling=CEILING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """One stage of the denoiser's training."""

    stage: Stage
    fit: FitSettings
    clips: int
    """Clips encoded once and trained on."""
    sharpen: float = 1.0
    """The queries are multiplied by this before the stage. Among more tokens the same attention is a flatter one: the
    temperature has to fall with their number (Jin et al., 2023, arXiv:2306.08645). Measured after the first stage, the
    loss over 4352 tokens was least for a factor of 2, and after the second for one of 1.5 to 2."""


def _fit(steps: int, batch: int, seed: int, rate: float = 2e-3) -> FitSettings:
    return FitSettings(
        steps=steps,
        batch=batch,
        rate=rate,
        muon_rate=2 * rate,
        average=0.99,
        cooldown=0.5,
        autocast=False,
        fused_attention=True,
        seed=seed,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class WanLongRecipe:
    """All that decides how the pocket is trained."""

    model: WanRecipe = field(
        default_factory=lambda: WanRecipe(
            blocks=10, heads=2, head_width=32, feed_forward=256, patch=1, query_gain=1.5, uncaptioned=0.15, shift=3.0
        )
    )
    autoencoder: FitSettings = FitSettings(steps=900, batch=8, rate=2e-3, average=0.99, autocast=False, seed=41)
    small: FitSettings = _fit(900, 16, 42)
    large: FitSettings = _fit(240, 16, 43, 1.5e-3)
    long: FitSettings = _fit(230, 4, 44, 1e-3)
    lasting: FitSettings = _fit(110, 16, 45, 1e-3)
    final: FitSettings = _fit(120, 4, 46, 7e-4)

    def growth(self) -> dict[str, Growth]:
        """The stages in turn, by name: 320, 1280, 4352, 1700 and 4352 tokens.

        After the third, shapes changed colour and course on their way: long clips of a small frame are cheap, and
        teach what lasts.
        """
        return {
            "small": Growth(stage=replace(LONG, frames=9, side=32), fit=self.small, clips=4096),
            "large": Growth(stage=replace(LONG, frames=9), fit=self.large, clips=2048, sharpen=1.6),
            "long": Growth(stage=LONG, fit=self.long, clips=640, sharpen=2.0),
            "lasting": Growth(stage=replace(LONG, side=40), fit=self.lasting, clips=1024, sharpen=0.85),
            "final": Growth(stage=LONG, fit=self.final, clips=640, sharpen=1.25),
        }


def train_wan_long(
    folder: Path, recipe: WanLongRecipe, *, device: str = "cpu", progress: bool = True, texts: str | Path = "wan"
) -> tuple[Any, dict[str, Any]]:
    """Train the autoencoder and the transformer, or continue where `folder` stands; the pipeline and its facts.

    Args:
        texts: where the text encoder comes from: a pocket, or a folder with a trained one.
    """
    place = torch.device(device)
    folder.mkdir(parents=True, exist_ok=True)
    source = load_pocket(texts)
    encoder, tokenizer = source.text_encoder.to(place).eval(), source.tokenizer
    growth = recipe.growth()
    seen = replace(recipe.model, stage=growth["small"].stage, autoencoder=recipe.autoencoder)
    autoencoder, result, fidelity = train_clip_autoencoder(seen, folder, place, progress=progress)
    parts, model = {"autoencoder": result}, build_denoiser(recipe.model)
    for name, stage in growth.items():
        current = replace(recipe.model, stage=stage.stage, denoiser=stage.fit, clips=stage.clips)
        with first_process_first():
            held = encode_clips(current, autoencoder, encoder, tokenizer, folder, f"latents-{name}")
        with torch.no_grad():
            for block in model.blocks:
                block.attn1.norm_q.weight *= stage.sharpen
        model, parts[name] = train_denoiser(
            current, held, folder, place, model=model, name=f"denoiser-{name}", progress=progress
        )
    facts: dict[str, Any] = {
        "parts": parts,
        "text_encoder": f"that of '{texts}', frozen",
        "autoencoder": {name: round(value, 4) for name, value in fidelity.items()},
    }
    return assemble(recipe.model, model, autoencoder, encoder, tokenizer), facts


def check_long_clips(media: Sequence[np.ndarray], captions: Sequence[str]) -> list[dict[str, float]]:
    """`clips.check` of clips of this pocket."""
    return clips.check(list(media), list(captions), LONG)
