"""Where published weights were trained with other constants than diffusers' layers have."""

from __future__ import annotations

from diffusers.models.embeddings import Timesteps
from torch import nn


def shift_frequencies(model: nn.Module, shift: float) -> None:
    """Tell times by frequencies 10000^(-i / (half - shift)), in place: diffusers' DiT has 1, its authors' code 0."""
    for part in model.modules():
        if isinstance(part, Timesteps):
            part.downscale_freq_shift = shift
