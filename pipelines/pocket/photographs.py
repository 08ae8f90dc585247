"""Photographs that come inside packages, crops of them with captions, and who reads off a crop what it shows.

Every file is in the wheel of its package, so nothing is downloaded. From scikit-image (its notes on each): brick and
gravel (CC0Textures, CC0), grass (linolafett, CC0), coins (Brooklyn Museum, no known copyright restrictions), coffee
(Rachel Michetti, CC0), cat (Stefan van der Walt, CC0), stars (Hubble eXtreme Deep Field, NASA, public domain) and
rocket (SpaceX, public domain). From scikit-learn: flower and temple (danielbuechele and vultilion, CC BY 2.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...errors import InputError, MissingDependencyError

SIDE = 128
FILES = {
    "brick": ("skimage", "brick"),
    "cat": ("skimage", "chelsea"),
    "coffee": ("skimage", "coffee"),
    "coins": ("skimage", "coins"),
    "flower": ("sklearn", "flower.jpg"),
    "grass": ("skimage", "grass"),
    "gravel": ("skimage", "gravel"),
    "rocket": ("skimage", "rocket"),
    "stars": ("skimage", "hubble_deep_field"),
    "temple": ("sklearn", "china.jpg"),
}
"""By what a caption calls it: the package, and the picture's name there."""

SUBJECTS = tuple(FILES)
ZOOMS = {"near": (SIDE, 160), "afar": (224, 288)}
"""Least and largest side of a crop, in pixels of the photograph, by the word in a caption."""

LABEL_SIZES = (len(SUBJECTS), len(ZOOMS))
CAPTIONS = tuple(f"{subject} from {zoom}" for zoom in ZOOMS for subject in SUBJECTS)
"""Every caption; its number is subject + len(SUBJECTS) zoom."""

REFERENCES = 48
"""Crops of each caption that a picture is compared with."""


@cache
def photograph(subject: str) -> torch.Tensor:
    """The photograph, (3, Y, X) in 0..1. Raises: MissingDependencyError without the package that holds it."""
    package, name = FILES[subject]
    try:
        if package == "sklearn":
            from sklearn.datasets import load_sample_image

            pixels: Any = load_sample_image(name)
        else:
            from skimage import data

            pixels = getattr(data, name)()
    except ImportError as error:
        raise MissingDependencyError(
            "photographs come with scikit-image and scikit-learn; pip install 'outpace[train]'"
        ) from error
    tensor = torch.from_numpy(np.array(pixels)).float() / 255
    return tensor.expand(3, -1, -1).clone() if tensor.ndim == 2 else tensor.permute(2, 0, 1).contiguous()


def labels_of(number: int) -> tuple[int, int]:
    """Subject and zoom of a caption, by its number."""
    return number % len(SUBJECTS), number // len(SUBJECTS)


def crops(numbers: Sequence[int], generator: torch.Generator, *, left_from: float = 0.0) -> torch.Tensor:
    """A crop for each caption number, (B, 3, SIDE, SIDE) in 0..1: anywhere, every second one mirrored.

    Args:
        left_from: share of the places along the photograph's width that are left out, from its left edge on.
    """
    made = []
    for number in numbers:
        subject, zoom = labels_of(number)
        picture = photograph(SUBJECTS[subject])
        least, most = list(ZOOMS.values())[zoom]
        side = int(torch.randint(least, most + 1, (1,), generator=generator))
        rows, columns = (size - side for size in picture.shape[1:])
        top = int(torch.randint(0, rows + 1, (1,), generator=generator))
        left = int(torch.randint(round(left_from * columns), columns + 1, (1,), generator=generator))
        crop = picture[:, top : top + side, left : left + side]
        if torch.rand(1, generator=generator) < 0.5:
            crop = crop.flip(2)
        made.append(F.interpolate(crop[None], size=(SIDE, SIDE), mode="bilinear", antialias=True)[0])
    return torch.stack(made).clamp(0, 1)


def draw_numbers(count: int, generator: torch.Generator) -> list[int]:
    """Numbers of `count` captions, each as likely."""
    return torch.randint(0, len(CAPTIONS), (count,), generator=generator).tolist()


def statistics(pictures_BCYX: torch.Tensor) -> torch.Tensor:
    """What tells the photographs apart, (B, 15): mean and spread of each colour, and slopes at three scales."""
    found = [pictures_BCYX.mean((2, 3)), pictures_BCYX.std((2, 3))]
    for _ in range(3):
        across, down = pictures_BCYX.diff(dim=3).abs(), pictures_BCYX.diff(dim=2).abs()
        found += [(across.mean((2, 3)) + down.mean((2, 3))).mean(1, keepdim=True)]
        found += [across.mean((1, 2, 3))[:, None], down.mean((1, 2, 3))[:, None]]
        pictures_BCYX = F.avg_pool2d(pictures_BCYX, 2)
    return torch.cat(found, 1)


@cache
def references() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Statistics of crops, standardised, with the caption number of each; and their scale."""
    generator = torch.Generator().manual_seed(424_242)
    numbers = [number for number in range(len(CAPTIONS)) for _ in range(REFERENCES)]
    found = statistics(crops(numbers, generator))
    scale = torch.stack([found.mean(0), found.std(0)])
    return (found - scale[0]) / scale[1], torch.tensor(numbers), scale


def check_photographs(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> list[dict[str, float]]:
    """What pictures (Y, X, 3) look most like: {"subject", "zoom", "all"} of each, 1 or 0.

    The crop with the nearest statistics says it. Raises: InputError for a caption that is none of ours.
    """
    unknown = [caption for caption in captions if caption not in CAPTIONS]
    if unknown:
        raise InputError(f"no photograph is called '{unknown[0]}'; write it as in '{CAPTIONS[0]}'")
    stacked = torch.from_numpy(np.stack([np.asarray(p, dtype=np.float32) for p in pictures])).permute(0, 3, 1, 2)
    known, numbers, scale = references()
    nearest = torch.cdist((statistics(stacked) - scale[0]) / scale[1], known).argmin(1)
    hits = []
    for place, caption in zip(nearest.tolist(), captions, strict=True):
        seen, meant = labels_of(int(numbers[place])), labels_of(CAPTIONS.index(caption))
        subject, zoom = (float(a == b) for a, b in zip(seen, meant, strict=True))
        hits.append({"subject": subject, "zoom": zoom, "all": subject * zoom})
    return hits
