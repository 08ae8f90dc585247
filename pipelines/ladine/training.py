"""The three stages of LaDiNE: the encoder, then the mapping networks, then the diffusion members; each frozen after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from ..pocket.training import FitResult, FitSettings, fit

Draw = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]
"""`draw(count, generator)` gives pictures (B, C, Y, X) in 0..1 and their classes (B,)."""


def train_encoder(
    encoder: Any, draw: Draw, settings: FitSettings, folder: Path, *, name: str = "encoder", progress: bool = True
) -> FitResult:
    """Stage 1: a plain classifier, by cross entropy."""

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        images, classes = draw(batch, generator)
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))  # dropout draws from the global state
        return F.cross_entropy(encoder(images), classes)

    result = fit(name, encoder.train(), loss_of, settings, folder, matrices=encoder.matrices(), progress=progress)
    encoder.eval().requires_grad_(False)
    return result


def train_mapping(
    mapping: Any, encoder: Any, draw: Draw, settings: FitSettings, folder: Path, *, progress: bool = True
) -> FitResult:
    """Stage 2: a classifier on the tokens of each of the first K blocks."""

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        images, classes = draw(batch, generator)
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        with torch.no_grad():
            tokens = encoder.tokens(images, mapping.members)
        logits = mapping.logits(tokens)
        return F.cross_entropy(logits.flatten(0, 1), classes.repeat(len(logits)))

    result = fit("mapping", mapping.train(), loss_of, settings, folder, progress=progress)
    mapping.eval().requires_grad_(False)
    return result


def train_members(
    denoiser: Any,
    scheduler: Any,
    images_BCYX: torch.Tensor,
    classes_B: torch.Tensor,
    z_KBC: torch.Tensor,
    settings: FitSettings,
    folder: Path,
    *,
    name: str = "denoiser",
    progress: bool = True,
) -> FitResult:
    """Stage 3: every member sees the noise in noised one-hot labels, or the labels, as the scheduler's
    `prediction_type` says; times come in pairs t and T - 1 - t.

    Args:
        z_KBC: what each member is guided by, read off `images_BCYX` once, since all that gives it is frozen.
    """
    times = scheduler.config["num_train_timesteps"]
    labels_BC = F.one_hot(classes_B, z_KBC.shape[-1]).to(z_KBC)

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        chosen = torch.randint(0, len(images_BCYX), (batch,), generator=generator)
        half = torch.randint(0, times, ((batch + 1) // 2,), generator=generator)
        level = torch.cat([half, times - 1 - half])[:batch]
        losses = []
        for member, z in enumerate(z_KBC[:, chosen]):
            code, mean = denoiser.read(member, images_BCYX[chosen], z)
            noise = torch.randn(z.shape, generator=generator)
            noised = scheduler.add_noise(labels_BC[chosen], noise, level, mean)
            target = noise if scheduler.config["prediction_type"] == "epsilon" else labels_BC[chosen]
            losses.append(F.mse_loss(denoiser(member, noised, z, code, level), target))
        return torch.stack(losses).mean()

    result = fit(name, denoiser.train(), loss_of, settings, folder, progress=progress)
    denoiser.eval().requires_grad_(False)
    return result
