"""Clips of one digit that drifts over the frame and bounces off its edges: the data of the `vdt` pocket.

Everything is drawn, from a font of 5 x 7 dots, so known frames can be made anywhere. The reader finds the digit again
by laying every digit of the font on every place.

Legend: B clips, T frames, Y X pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

FRAMES, SIDE = 8, 16

FONT = """
01110 00100 01110 01110 00010 11111 00110 11111 01110 01110
10001 01100 10001 10001 00110 10000 01000 00001 10001 10001
10011 00100 00001 00001 01010 11110 10000 00010 10001 10001
10101 00100 00010 00110 10010 00001 11110 00100 01110 01111
11001 00100 00100 00001 11111 00001 10001 01000 10001 00001
10001 00100 01000 10001 00010 10001 10001 01000 10001 00010
01110 01110 11111 01110 00010 01110 01110 01000 01110 01100
"""
"""Seven rows of ten digits of five dots."""

SCALE = 1.1
"""Pixels a dot takes."""
LOW, HIGH = (4.5, 3.5), (SIDE - 4.5, SIDE - 3.5)
"""Between these a digit's middle moves: row, column."""


@cache
def font() -> torch.Tensor:
    """The digits as dots, (10, 7, 5)."""
    rows = [[[float(dot) for dot in digit] for digit in line.split()] for line in FONT.split("\n") if line]
    return torch.tensor(rows).transpose(0, 1).contiguous()


def render(digits: torch.Tensor, middles: torch.Tensor) -> torch.Tensor:
    """Ink of `digits` (B,) with their middles at (B, 2), row and column in pixels: (B, Y, X) in 0..1."""
    glyphs = F.pad(font(), (1, 1, 1, 1))[digits][:, None]
    pixels = torch.arange(SIDE) + 0.5
    rows = (pixels - middles[:, :1]) / SCALE / (glyphs.shape[2] / 2)
    columns = (pixels - middles[:, 1:]) / SCALE / (glyphs.shape[3] / 2)
    places = torch.stack([columns[:, None].expand(-1, SIDE, -1), rows[:, :, None].expand(-1, -1, SIDE)], dim=-1)
    return F.grid_sample(glyphs, places, align_corners=False)[:, 0]


def paths(count: int, generator: torch.Generator, frames: int = FRAMES) -> torch.Tensor:
    """Middles of `count` digits that move evenly and bounce, (B, T, 2)."""
    low, span = torch.tensor(LOW), torch.tensor(HIGH) - torch.tensor(LOW)
    begin = torch.rand(count, 2, generator=generator)
    angle = 2 * torch.pi * torch.rand(count, generator=generator)
    speed = 0.7 + 0.8 * torch.rand(count, generator=generator)
    step = torch.stack([angle.sin(), angle.cos()], 1) * speed[:, None] / span
    way = (begin[:, None] + torch.arange(frames)[None, :, None] * step[:, None]) % 2
    return low + span * torch.where(way > 1, 2 - way, way)


def draw_moving_digits(
    count: int, generator: torch.Generator, frames: int = FRAMES
) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` clips (B, T, Y, X, 3) in 0..1 and their digits; `generator` decides digit, ink and way."""
    digits = torch.randint(10, (count,), generator=generator)
    ink = render(digits.repeat_interleave(frames), paths(count, generator, frames).flatten(0, 1))
    phase = torch.rand(count, 1, generator=generator) - torch.tensor([0.0, 1 / 3, 2 / 3])
    colour = (0.6 + 0.4 * torch.cos(2 * torch.pi * phase))[:, None, None, None]
    return 0.05 + (colour - 0.05) * ink.view(count, frames, SIDE, SIDE, 1), digits


def known_clips(seeds: Sequence[int]) -> np.ndarray:
    """One clip a seed, (B, T, Y, X, 3): what a task that starts from a clip is given."""
    return np.stack([draw_moving_digits(1, torch.Generator().manual_seed(seed))[0][0].numpy() for seed in seeds])


@cache
def _templates() -> torch.Tensor:
    """Every digit on every half pixel, (10, places, Y * X), each of mean 0 and length 1."""
    rows, columns = (torch.arange(low, high + 0.25, 0.5) for low, high in zip(LOW, HIGH, strict=True))
    middles = torch.cartesian_prod(rows, columns)
    laid = torch.stack([render(torch.full((len(middles),), digit), middles) for digit in range(10)]).flatten(2)
    laid = laid - laid.mean(2, keepdim=True)
    return laid / laid.norm(dim=2, keepdim=True)


def read_moving_digits(clip: np.ndarray) -> tuple[list[int], list[float]]:
    """The digit in each frame of a clip (T, Y, X, 3), and how well it matches the font there (1: exactly)."""
    ink = torch.from_numpy(np.asarray(clip, dtype=np.float32)).amax(-1).flatten(1)
    ink = ink - ink.mean(1, keepdim=True)
    ink = ink / ink.norm(dim=1, keepdim=True).clamp(min=1e-6)
    match = (_templates() @ ink.T).amax(1)
    best = match.max(0)
    return best.indices.tolist(), best.values.tolist()


def check_moving_digits(clips: Sequence[np.ndarray], tasks: Sequence[str]) -> list[dict[str, float]]:
    """For each clip: shares of frames that hold a digit of the font ("digit"), and that hold the most seen ("same")."""
    found = []
    for clip in clips:
        digits, match = read_moving_digits(clip)
        most = max(set(digits), key=digits.count)
        found.append(
            {
                "digit": float(np.mean([value >= 0.85 for value in match])),
                "same": digits.count(most) / len(digits),
            }
        )
    return found
