"""Voices drawn from a formula: a vibrating pitch, formants that move, syllables with pauses between them.

They are no speech, but what separates them separates voices: harmonics that move together, and what stands beside them.
Shapes: B batch, L samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import ConfigError

KINDS = {
    "low": ((90.0, 140.0), ((300.0, 550.0), (800.0, 1200.0))),
    "high": ((180.0, 260.0), ((550.0, 900.0), (1250.0, 1750.0))),
}
"""Kind of voice -> from where to where its pitch lies, and the two resonances of its syllables, in Hz."""


def voices(count: int, samples: int, rate: int, kind: str, generator: torch.Generator) -> Tensor:
    """(B, L): `count` voices of a kind, each of its own pitch, with mean 0 and a standard deviation of 1.

    Raises: ConfigError: fewer than 100 samples, or a kind that is not known.
    """
    if kind not in KINDS or samples < 100 or count < 1:
        raise ConfigError(f"voices are {' or '.join(KINDS)}, of at least 100 samples, not {kind} of {samples}")

    def drawn(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    time = torch.arange(samples) / rate
    (low, high), formants = KINDS[kind]
    vibrato = 1 + 0.03 * torch.sin(2 * math.pi * (drawn(4, 7, 1) * time + drawn(0, 1, 1)))
    glide = 1 + drawn(-0.15, 0.15, 1) * torch.sin(2 * math.pi * (drawn(0.5, 1.5, 1) * time + drawn(0, 1, 1)))
    pitch = (drawn(low, high, 1) * vibrato * glide).clamp(low, high)
    turns = pitch.cumsum(-1) / rate
    syllables = max(2, math.ceil(samples / rate / 0.16))
    place = (time / time[-1] * syllables).long().clamp(max=syllables - 1)
    centres = torch.stack([drawn(a, b, syllables) for a, b in formants])[..., place]
    sound = torch.zeros(count, samples)
    for harmonic in range(1, int(rate / 2 / high) + 1):
        near = torch.exp(-(((harmonic * pitch - centres) / 180) ** 2) / 2).sum(0)
        phase = drawn(0, 1, 1)
        sound = sound + (0.08 + near) / harmonic**0.5 * torch.sin(2 * math.pi * (harmonic * turns + phase))
    sound = sound * _loudness(drawn(0, 1, syllables), place, time, syllables)
    sound = sound - sound.mean(-1, keepdim=True)
    return sound / sound.std(-1, keepdim=True)


def mixtures(count: int, samples: int, rate: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(mixtures (B, L), their two voices (B, 2, L)): a low and a high one, of about the same loudness."""
    parts = torch.stack([voices(count, samples, rate, kind, generator) for kind in KINDS], 1)
    gains = 10 ** ((torch.rand(count, 2, 1, generator=generator) - 0.5) * 5 / 20)
    parts = parts * gains
    return parts.sum(1), parts


def _loudness(drawn_BS: Tensor, place_L: Tensor, time_L: Tensor, syllables: int) -> Tensor:
    """A hump for each syllable; about one in four is a pause, never all of them."""
    said = (drawn_BS > 0.25).float()
    said[:, 0] = torch.maximum(said[:, 0], 1 - said[:, 1:].amax(1))
    inside = time_L / time_L[-1] * syllables - place_L
    hump = torch.sin(math.pi * inside).clamp(min=0).sqrt()
    return ((0.3 + drawn_BS) * said)[:, place_L] * hump
