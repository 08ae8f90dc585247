"""The `lego` pocket: digits by class from three bricks of 4, 16 and 32 pixels, in pixels, trained from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..lego import LegoPipeline, LegoTransformer2DModel, lego_loss
from .digits import SIDE, draw_digits
from .training import FitResult, FitSettings, fit

CLASSES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class LegoRecipe:
    """All that decides how the pocket is trained."""

    denoiser: FitSettings = FitSettings(
        steps=5000, batch=16, rate=2e-3, muon_rate=4e-3, average=0.998, autocast=False, fused_attention=True, seed=61
    )
    brick_sizes: tuple[int, ...] = (4, 16, SIDE)
    patch_sizes: tuple[int, ...] = (2, 4, 2)
    blocks: tuple[int, ...] = (2, 4, 6)
    heads: int = 4
    head_width: int = 32
    unlabelled: float = 0.1
    """Share of samples trained without their class, for guidance."""


def build_denoiser(recipe: LegoRecipe, *, seed: int = 0) -> LegoTransformer2DModel:
    """The untrained transformer."""
    torch.manual_seed(seed)
    return LegoTransformer2DModel(
        sample_size=SIDE,
        brick_sizes=recipe.brick_sizes,
        patch_sizes=recipe.patch_sizes,
        num_layers=recipe.blocks,
        num_attention_heads=recipe.heads,
        attention_head_dim=recipe.head_width,
        num_embeds_ada_norm=CLASSES,
    ).initialise()


def train_denoiser(
    recipe: LegoRecipe, folder: Path, device: torch.device, *, progress: bool = True
) -> tuple[LegoTransformer2DModel, FitResult]:
    """Teach every brick to answer."""
    model = build_denoiser(recipe).to(device).eval()  # in train mode it would drop its labels by itself

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        pictures, classes = draw_digits(batch, generator)
        classes[torch.rand(batch, generator=generator) < recipe.unlabelled] = CLASSES
        return lego_loss(model, (pictures * 2 - 1).to(device), classes.to(device), generator)

    matrices = [
        weight
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and "transformer_blocks" in name and "norm1" not in name
    ]
    result = fit("denoiser", model, loss_of, recipe.denoiser, folder, matrices=matrices, progress=progress)
    return model, result


def assemble(denoiser: LegoTransformer2DModel) -> LegoPipeline:
    """A LegoPipeline over the noise levels of Karras et al., with a solver for few steps."""
    from diffusers import EDMDPMSolverMultistepScheduler

    return LegoPipeline(denoiser.eval(), EDMDPMSolverMultistepScheduler(sigma_data=denoiser.config["sigma_data"]))


def train_lego(
    folder: Path, recipe: LegoRecipe, *, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Train the bricks, or continue where `folder` stands; the pipeline and the facts for its card."""
    denoiser, result = train_denoiser(recipe, folder, torch.device(device), progress=progress)
    return assemble(denoiser), {"parts": {"denoiser": result}}
