"""Handwritten digits in colour: the data of the class-conditional pocket, and the network that reads a picture back.

The strokes are the 1797 digits of 8 x 8 pixels that come with scikit-learn (UCI Optical Recognition of Handwritten
Digits, Alpaydin and Kaynak 1998, CC BY 4.0), enlarged to 32 x 32, turned, shifted and inked in a random hue. The
reader is a small convolutional network trained on the first 1500 of them; the other 297 say how well it reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...errors import InputError, MissingDependencyError

SIDE = 32
TRAIN_COUNT = 1500
"""Digits before this index train the generator and the reader; the rest only measure the reader."""


def stroke_numbers(first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Which strokes train, TRAIN_COUNT from `first` on (behind the last one comes number 0), and which do not."""
    total = len(digit_strokes()[0])
    numbers = (first + torch.arange(total)) % total
    return numbers[:TRAIN_COUNT], numbers[TRAIN_COUNT:]


READER_FILE = Path(__file__).parent / "weights" / "digit_reader.safetensors"


@cache
def digit_strokes() -> tuple[torch.Tensor, torch.Tensor]:
    """All strokes, (1797, 8, 8) in 0..1, and their classes. Raises: MissingDependencyError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError(
            "training on digits needs scikit-learn, which holds them; pip install 'outpace[train]'"
        ) from error
    digits: Any = load_digits()
    return torch.tensor(digits.images / 16.0, dtype=torch.float32), torch.tensor(digits.target)


def render_digits(strokes_BYX: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Enlarge, turn, shift and ink `strokes_BYX`; pictures (B, 3, 32, 32) in 0..1."""
    count = len(strokes_BYX)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator)

    large = F.interpolate(F.pad(strokes_BYX[:, None], (1, 1, 1, 1)), size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
    angle, scale = (uniform() - 0.5) * 0.3, 1 + (uniform() - 0.5) * 0.2
    affine = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2) * scale[:, None, None]
    affine = torch.cat([affine, (uniform(2, 1) - 0.5) * 0.2], 2)
    grid = F.affine_grid(affine, list(large.shape), align_corners=False)
    mask = ((F.grid_sample(large, grid, align_corners=False) - 0.3) * 2.2).clamp(0, 1)
    phase = torch.tensor([0.0, 1 / 3, 2 / 3])[None, :, None, None]
    ink = 0.6 + 0.4 * torch.cos(2 * math.pi * (uniform(1, 1, 1) - phase))
    paper = 0.06 + 0.10 * uniform(1, 1, 1).expand(count, 3, 1, 1)
    return paper * (1 - mask) + ink * mask


def draw_digits(count: int, generator: torch.Generator, *, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` pictures of training digits, (count, 3, 32, 32) in 0..1, and their classes.

    Args:
        first: the first of the strokes that train.
    """
    strokes, classes = digit_strokes()
    chosen = stroke_numbers(first)[0][torch.randint(0, TRAIN_COUNT, (count,), generator=generator)]
    return render_digits(strokes[chosen], generator), classes[chosen]


class DigitReader(nn.Module):
    """Reads the digit off a picture, whatever its ink; 26 thousand weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48 * 16, 10),
        )

    def forward(self, pictures_BCYX: torch.Tensor) -> torch.Tensor:
        """Class scores (B, 10) of pictures in 0..1."""
        return self.body(self.ink(pictures_BCYX))

    def features(self, pictures_BCYX: torch.Tensor) -> torch.Tensor:
        """What the last convolution sees, averaged over places, (B, 48)."""
        return self.body[:-2](self.ink(pictures_BCYX)).mean((2, 3))

    def ink(self, pictures_BCYX: torch.Tensor) -> torch.Tensor:
        """How far each pixel is from the colour of the edges, (B, 1, Y, X), 1 at the furthest."""
        edge = torch.cat([pictures_BCYX[:, :, 0], pictures_BCYX[:, :, -1]], 2).median(2).values[:, :, None, None]
        ink = (pictures_BCYX - edge).abs().amax(1, keepdim=True)
        return ink / ink.amax((2, 3), keepdim=True).clamp(min=0.05)


@cache
def digit_reader() -> DigitReader:
    """The reader with its shipped weights. Raises: InputError where they are not there."""
    from safetensors.torch import load_file

    if not READER_FILE.is_file():
        raise InputError(f"the digit reader's weights are missing ({READER_FILE}); reinstall outpace, or train 'dit'")
    reader = DigitReader()
    reader.load_state_dict(load_file(READER_FILE))
    return reader.eval()


def digit_features(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """What the reader sees in each picture (32, 32, 3), floats in 0..1: features [R, 48]."""
    batch = torch.from_numpy(np.stack([np.asarray(p, dtype=np.float32) for p in pictures])).permute(0, 3, 1, 2)
    with torch.no_grad():
        return digit_reader().features(batch).numpy()


def read_digits(pictures: Sequence[np.ndarray]) -> list[int]:
    """The digit on each picture (32, 32, 3), floats in 0..1."""
    batch = torch.from_numpy(np.stack([np.asarray(p, dtype=np.float32) for p in pictures])).permute(0, 3, 1, 2)
    with torch.no_grad():
        return digit_reader()(batch).argmax(1).tolist()


def check_digits(pictures: Sequence[np.ndarray], classes: Sequence[int]) -> list[dict[str, float]]:
    """For each picture whether it shows the digit asked for: {"digit": 1.0 or 0.0}."""
    read = read_digits(pictures)
    return [{"digit": float(seen == int(asked))} for seen, asked in zip(read, classes, strict=True)]
