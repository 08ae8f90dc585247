"""The picture autoencoder of a pocket: diffusers' AutoencoderKL, four times smaller each way, trained from nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from .training import FitResult, FitSettings, fit

Draw = Callable[[int, torch.Generator], torch.Tensor]
"""`draw(count, generator)` gives pictures (count, 3, Y, X) in 0..1."""


def build_autoencoder(
    side: int, *, latent_channels: int = 4, channels: tuple[int, ...] = (16, 32, 32), layers: int = 1, seed: int = 0
) -> Any:
    """An untrained autoencoder for pictures of `side` pixels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=layers,
        latent_channels=latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=side,
    )


def train_autoencoder(
    name: str,
    autoencoder: Any,
    draw: Draw,
    settings: FitSettings,
    folder: Path,
    *,
    divergence_weight: float = 2e-3,
    progress: bool = True,
) -> FitResult:
    """Train `autoencoder` on pictures from `draw`: absolute and squared error, a little Kullback-Leibler divergence."""
    device = next(autoencoder.parameters()).device
    autoencoder.to(memory_format=torch.channels_last)

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        pictures = (draw(batch, generator) * 2 - 1).to(device, memory_format=torch.channels_last)
        mean, log_variance = autoencoder.encoder(pictures).float().chunk(2, 1)
        log_variance = log_variance.clamp(-12, 4)
        noise = torch.randn(mean.shape, generator=generator).to(device)
        remade = autoencoder.decoder(mean + noise * (0.5 * log_variance).exp()).float()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return F.l1_loss(remade, pictures) + 2 * F.mse_loss(remade, pictures) + divergence_weight * divergence

    return fit(name, autoencoder, loss_of, settings, folder, progress=progress)


@torch.no_grad()
def encode_pictures(autoencoder: Any, pictures_BCYX: torch.Tensor, *, chunk: int = 128) -> torch.Tensor:
    """Mean latents of pictures in 0..1, unscaled, in float32 on the CPU."""
    device = next(autoencoder.parameters()).device
    parts = [
        autoencoder.encode(p.to(device) * 2 - 1).latent_dist.mean.float().cpu() for p in pictures_BCYX.split(chunk)
    ]
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(autoencoder: Any, latents_BCYX: torch.Tensor, *, chunk: int = 128) -> torch.Tensor:
    """Pictures in 0..1 of unscaled latents, on the CPU."""
    device = next(autoencoder.parameters()).device
    parts = [autoencoder.decode(z.to(device)).sample.float().cpu() for z in latents_BCYX.split(chunk)]
    return ((torch.cat(parts) + 1) / 2).clamp(0, 1)


def psnr_decibel(pictures: torch.Tensor, remade: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in 0..1."""
    return float(-10 * torch.log10(F.mse_loss(remade, pictures)))
