"""Drawn scenes for segmentation: squares, discs and triangles on a noisy ground, some behind others.

Their colours hint at their kind and do not settle it: squares tend to red, discs to green, triangles to blue.

Shapes: B batch, Y X grid, S shapes of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ConfigError

CLASSES = ("ground", "square", "disc", "triangle")
"""Names of the classes, by number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A picture, and what is to be seen in it."""

    picture: Tensor
    """(3, Y, X), from 0 to 1."""
    masks: Tensor
    """bool (S + 1, Y, X): the ground, then every shape that is not hidden whole. Each pixel is in one of them."""
    kinds: Tensor
    """(S + 1): the class of each mask."""

    @property
    def classes(self) -> Tensor:
        """(Y, X): the class of each pixel."""
        return (self.masks * self.kinds[:, None, None]).sum(0)


def scenes(count: int, side: int, generator: torch.Generator, *, most: int = 5) -> list[Scene]:
    """Scenes of 1 to `most` shapes: few are easy, many hide each other.

    Raises: ConfigError: no scene, no shape, or fewer than 16 pixels a side.
    """
    if count < 1 or most < 1 or side < 16:
        raise ConfigError(f"scenes have 16 pixels a side and a shape at least, not {count} of {side} with {most}")
    return [_scene(side, most, generator) for _ in range(count)]


def mean_overlap(said: Tensor, true: Tensor, classes: int) -> float:
    """Mean over the classes that occur of the intersection of what was said and what is true over their union.

    Shapes: both are integers of one shape.
    """
    overlaps = []
    for one in range(classes):
        a, b = said == one, true == one
        union = int((a | b).sum())
        if union:
            overlaps.append(int((a & b).sum()) / union)
    return sum(overlaps) / len(overlaps)


def _scene(side: int, most: int, generator: torch.Generator) -> Scene:
    def drawn(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    y, x = torch.meshgrid(*(torch.arange(side) + 0.5,) * 2, indexing="ij")
    colour = torch.rand(3, 1, 1, generator=generator)
    picture = colour * 0.4 + 0.3 + 0.1 * torch.randn(3, side, side, generator=generator)
    owner = torch.zeros(side, side, dtype=torch.long)
    kinds = [0]
    for number in range(1, int(drawn(1, most + 1)) + 1):
        kind = int(drawn(1, len(CLASSES)))
        radius = drawn(0.1, 0.25) * side
        row, column = drawn(radius, side - radius), drawn(radius, side - radius)
        inside = _inside(kind, (y - row) / radius, (x - column) / radius)
        tint = torch.eye(3)[kind - 1, :, None, None]
        colour = 0.4 * tint + 0.6 * torch.rand(3, 1, 1, generator=generator)
        noise = 0.1 * torch.randn(3, side, side, generator=generator)
        picture = torch.where(inside, colour + noise, picture)
        owner = torch.where(inside, number, owner)
        kinds.append(kind)
    masks = torch.stack([owner == number for number in range(len(kinds))])
    seen = masks.any(-1).any(-1)
    return Scene(picture=picture.clamp(0, 1), masks=masks[seen], kinds=torch.tensor(kinds)[seen])


def _inside(kind: int, y: Tensor, x: Tensor) -> Tensor:
    """bool: which positions, in units of its radius from its middle, a shape covers."""
    if CLASSES[kind] == "square":
        return torch.maximum(y.abs(), x.abs()) < 0.85
    if CLASSES[kind] == "disc":
        return y**2 + x**2 < 1
    return (y < 0.8) & (2 * x.abs() - 1 < y)
