"""Point clouds of spheres, boxes, tori and cylinders of many sizes: the data of the `dit3d` pocket, and its reader.

Legend: B clouds, N points; z is the axis of tori and cylinders.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..dit3d.picture import read_picture

SHAPES = ("sphere", "box", "torus", "cylinder")
POINTS = 256
NEAR = 0.06
"""Mean distance from a surface within which points count as on it; clouds of the training data are at 0.01."""
SPREAD = 0.5
"""Of the coordinates, about; the model sees them divided by it."""


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _round(plane: torch.Tensor, z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Points at a distance `plane` from the z axis, at any angle."""
    angle = _uniform(0, 2 * torch.pi, tuple(plane.shape), generator)
    return torch.stack([plane * angle.cos(), plane * angle.sin(), z], -1)


def _sphere(count: int, points: int, generator: torch.Generator) -> torch.Tensor:
    way = torch.randn(count, points, 3, generator=generator)
    return way / way.norm(dim=2, keepdim=True) * _uniform(0.55, 1.0, (count, 1, 1), generator)


def _box(count: int, points: int, generator: torch.Generator) -> torch.Tensor:
    half = _uniform(0.35, 0.8, (count, 3), generator)
    places = _uniform(-1, 1, (count, points, 3), generator) * half[:, None]
    axis = torch.multinomial(half.prod(1, keepdim=True) / half, points, replacement=True, generator=generator)
    edge = half.gather(1, axis) * (torch.randint(0, 2, (count, points), generator=generator) * 2 - 1)
    return places.scatter(2, axis[..., None], edge[..., None])


def _torus(count: int, points: int, generator: torch.Generator) -> torch.Tensor:
    ring, tube = _uniform(0.55, 0.8, (count, 1), generator), _uniform(0.15, 0.3, (count, 1), generator)
    # More of the surface lies outside than inside: angles of the tube are drawn by how long their circle is.
    angles = (torch.arange(128) + 0.5) * (2 * torch.pi / 128)
    chosen = torch.multinomial(ring + tube * angles.cos(), points, replacement=True, generator=generator)
    angle = angles[chosen] + _uniform(-1, 1, (count, points), generator) * (torch.pi / 128)
    return _round(ring + tube * angle.cos(), tube * angle.sin(), generator)


def _cylinder(count: int, points: int, generator: torch.Generator) -> torch.Tensor:
    radius, half = _uniform(0.3, 0.7, (count, 1), generator), _uniform(0.4, 0.9, (count, 1), generator)
    on_side = torch.rand(count, points, generator=generator) < 2 * half / (2 * half + radius)
    within = torch.rand(count, points, generator=generator)
    plane = torch.where(on_side, radius, radius * within.sqrt())
    end = half * (torch.randint(0, 2, (count, points), generator=generator) * 2 - 1)
    z = torch.where(on_side, half * _uniform(-1, 1, (count, points), generator), end)
    return _round(plane, z, generator)


_DRAW = (_sphere, _box, _torus, _cylinder)


def draw_shapes(
    count: int, generator: torch.Generator, *, points: int = POINTS, classes: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` clouds (B, N, 3), points even over their surfaces, and their classes: those given, or drawn."""
    if classes is None:
        classes = torch.randint(len(SHAPES), (count,), generator=generator)
    clouds = torch.empty(count, points, 3)
    for number, draw in enumerate(_DRAW):
        mine = classes == number
        clouds[mine] = draw(int(mine.sum()), points, generator)
    return clouds, classes


def shape_residuals(points_N3: np.ndarray) -> np.ndarray:
    """Mean distance of the points to the best sphere, box, torus and cylinder about their middle, (4,)."""
    points = np.asarray(points_N3, dtype=np.float64)
    low, high = np.quantile(points, 0.02, axis=0), np.quantile(points, 0.98, axis=0)
    x, y, z = (points - (low + high) / 2).T
    plane, flat = np.hypot(x, y), np.abs(np.stack([x, y, z], 1))

    def off(distance: np.ndarray) -> float:
        return float(np.abs(distance - np.median(distance)).mean())

    half, radius = np.quantile(flat, 0.95, axis=0), np.quantile(plane, 0.95)
    tori = [off(np.hypot(plane - ring, z)) for ring in np.linspace(0.45, 0.9, 19)]
    return np.array(
        [
            off(np.sqrt(plane**2 + z**2)),
            np.abs((flat - half).max(1)).mean(),
            min(tori),
            np.abs(np.maximum(plane - radius, np.abs(z) - half[2])).mean(),
        ]
    )


def check_shapes(media: Sequence[np.ndarray], classes: Sequence[int | str]) -> list[dict[str, float]]:
    """For each picture whether it shows the shape asked for best, and whether its points lie near such a surface."""
    found = []
    for shown, asked in zip(media, classes, strict=True):
        points = read_picture(shown)
        residuals = shape_residuals(points) if len(points) > 8 else np.full(len(SHAPES), np.inf)
        number = SHAPES.index(asked) if isinstance(asked, str) else int(asked)
        found.append({"shape": float(residuals.argmin() == number), "near": float(residuals[number] < NEAR)})
    return found
