"""The `dit3d` pocket: clouds of 256 points by shape. A DiT-3D of 64 tokens, trained from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..dit3d import DiT3DPipeline, DiT3DTransformerModel
from .shapes import POINTS, SHAPES, SPREAD, draw_shapes
from .training import FitResult, FitSettings, fit
from .vdt import build_scheduler, matrices_of, noised


@dataclass(frozen=True, kw_only=True, slots=True)
class DiT3DRecipe:
    """All that decides how the pocket is trained."""

    denoiser: FitSettings = FitSettings(
        steps=600, batch=32, rate=2e-3, muon_rate=4e-3, average=0.99, autocast=False, seed=41
    )
    blocks: int = 6
    heads: int = 4
    head_width: int = 30
    voxels: int = 16
    patch: int = 4
    unlabelled: float = 0.1
    """Share of samples trained without their class, for guidance."""


def start(model: DiT3DTransformerModel) -> DiT3DTransformerModel:
    """`model` with Xavier matrices, gates and output at zero."""
    for name, weight in model.named_parameters():
        if "embedding_table" in name or ("timestep_embedder" in name and weight.ndim == 2):
            nn.init.normal_(weight, std=0.02)
        elif "norm1.linear" in name or name.startswith("proj_out") or name.endswith("bias"):
            nn.init.zeros_(weight)
        elif weight.ndim == 2 and ".processor." not in name:
            nn.init.xavier_uniform_(weight)
    return model


def build_denoiser(recipe: DiT3DRecipe, *, seed: int = 0, **settings: Any) -> DiT3DTransformerModel:
    """The untrained transformer; `settings` change its configuration."""
    torch.manual_seed(seed)
    usual: dict[str, Any] = {
        "num_attention_heads": recipe.heads,
        "attention_head_dim": recipe.head_width,
        "num_layers": recipe.blocks,
        "voxel_size": recipe.voxels,
        "patch_size": recipe.patch,
        "num_embeds_ada_norm": len(SHAPES),
    }
    return start(DiT3DTransformerModel(**{**usual, **settings}))


def shape_loss(
    model: DiT3DTransformerModel, generator: torch.Generator, batch: int, *, unlabelled: float = 0.1
) -> torch.Tensor:
    """The mean squared error of the velocity of points, on `batch` clouds and noise that `generator` decides."""
    clouds, labels = draw_shapes(batch, generator)
    labels[torch.rand(batch, generator=generator) < unlabelled] = len(SHAPES)
    x, level, velocity = noised(clouds / SPREAD, build_scheduler(), generator)
    place = next(model.parameters()).device
    seen = model(x.to(place), level.to(place), labels.to(place)).sample
    return nn.functional.mse_loss(seen.float(), velocity.to(place))


def train_dit3d(
    folder: Path, recipe: DiT3DRecipe, *, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Train the transformer, or continue where `folder` stands; the pipeline and the facts for its card."""
    model = build_denoiser(recipe).to(torch.device(device)).eval()  # in train mode blocks would drop labels as well
    result: FitResult = fit(
        "denoiser",
        model,
        lambda generator, batch: shape_loss(model, generator, batch, unlabelled=recipe.unlabelled),
        recipe.denoiser,
        folder,
        matrices=matrices_of(model),
        progress=progress,
    )
    return assemble(model), {"parts": {"denoiser": result}}


def assemble(model: DiT3DTransformerModel) -> DiT3DPipeline:
    """The pipeline around a trained transformer."""
    return DiT3DPipeline(
        model.eval(),
        build_scheduler(),
        id2label={str(number): name for number, name in enumerate(SHAPES)},
        scale=SPREAD,
        num_points=POINTS,
    )
