"""A picture as tiles of one size, beside each other or overlapping, and back: where they overlap they are averaged.

Shapes: B batch, C channels, Y X pixels, S tiles (rows of tiles first), R L rows and columns of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from .inputs import check_one_type

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """Tiles that cover a picture: rows and columns each, in this order.

    Tiles that divide the picture lie beside each other; others are moved inwards at its edges and overlap there.

    >>> tiles = Tiles(sides=(2, 2))
    >>> picture = torch.arange(12.0).view(1, 1, 3, 4)
    >>> tiles.split(picture).shape, bool((tiles.join(tiles.split(picture), (3, 4)) == picture).all())
    (torch.Size([4, 1, 2, 2]), True)
    """

    sides: Pair
    """Pixels of a tile."""
    overlap: Pair = (0, 0)
    """Pixels that neighbours share at least; each counts the less there the nearer its own edge is."""
    shift: Pair = (0, 0)
    """Pixels by which all but the outermost tiles are moved up and to the left."""

    def __post_init__(self) -> None:
        if not len(self.sides) == len(self.overlap) == len(self.shift) == 2:
            raise ConfigError(
                f"tiles have two sides, overlaps and shifts, not {self.sides}, {self.overlap}, {self.shift}"
            )
        if any(not 0 <= shared < side for shared, side in zip(self.overlap, self.sides, strict=True)):
            raise ConfigError(f"tiles of {self.sides} pixels cannot overlap by {self.overlap}")

    def split(self, picture_BCYX: Tensor) -> Tensor:
        """The tiles of a picture, (B * S, C, R, L). Raises: ConfigError where the picture is smaller than one."""
        check_one_type("a picture in tiles", picture=picture_BCYX)
        if picture_BCYX.ndim != 4:
            raise ConfigError(
                f"tiles are of pictures (batch, channels, rows, columns), not {tuple(picture_BCYX.shape)}"
            )
        batch, channels = picture_BCYX.shape[:2]
        rows, columns = self._places((picture_BCYX.shape[2], picture_BCYX.shape[3]), 1, picture_BCYX.device)
        cut = picture_BCYX.index_select(2, rows.flatten()).index_select(3, columns.flatten())
        cut = cut.view(batch, channels, *rows.shape, *columns.shape)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch * len(rows) * len(columns), channels, *self.sides)

    def join(self, tiles_SCRL: Tensor, size: Pair, *, scale: int = 1) -> Tensor:
        """The picture whose tiles these are, (B, C, Y, X).

        Args:
            size: rows and columns of the picture that was split.
            scale: pixels of a tile's side now for each it was split with; the picture is as much larger.

        Raises: ConfigError: tiles of another number or size.
        """
        rows, columns = self._places(size, scale, tiles_SCRL.device)
        sides, count = (rows.shape[1], columns.shape[1]), len(rows) * len(columns)
        if tiles_SCRL.ndim != 4 or tuple(tiles_SCRL.shape[2:]) != sides or len(tiles_SCRL) % count:
            raise ConfigError(
                f"a picture of {size} has {count} tiles of {sides} (at scale {scale}), not {tuple(tiles_SCRL.shape)}"
            )
        down, across = (self._weight(axis, scale, tiles_SCRL) for axis in (0, 1))
        parts = tiles_SCRL.unflatten(0, (-1, len(rows), len(columns))).permute(0, 3, 1, 4, 2, 5)
        batch, channels = parts.shape[:2]
        parts = parts * down[:, None, None] * across if any(self.overlap) else parts
        height, width = size[0] * scale, size[1] * scale
        tall = parts.new_zeros(batch, channels, height, columns.numel())
        tall = tall.index_add(2, rows.flatten(), parts.reshape(batch, channels, rows.numel(), columns.numel()))
        whole = parts.new_zeros(batch, channels, height, width).index_add(3, columns.flatten(), tall)
        total_down, total_across = (
            weight.new_zeros(length).index_add(0, places.flatten(), weight.repeat(len(places)))
            for length, places, weight in ((height, rows, down), (width, columns, across))
        )
        return whole / (total_down[:, None] * total_across)

    def count(self, size: Pair) -> int:
        """How many tiles cover a picture of `size`."""
        return len(self._starts(0, size[0])) * len(self._starts(1, size[1]))

    def _places(self, size: Pair, scale: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The rows and the columns of a scaled picture that each row and each column of tiles takes."""
        rows, columns = (
            torch.tensor(self._starts(axis, size[axis]), device=device)[:, None] * scale
            + torch.arange(self.sides[axis] * scale, device=device)
            for axis in (0, 1)
        )
        return rows, columns

    def _starts(self, axis: int, length: int) -> list[int]:
        side, overlap, shift = self.sides[axis], self.overlap[axis], self.shift[axis]
        if length < side:
            raise ConfigError(f"a side of {length} is smaller than a tile or brick of {side}; choose a larger one")
        last, stride = length - side, side - overlap
        return sorted({min(max(start, 0), last) for start in range(-(shift % stride), last + stride, stride)})

    def _weight(self, axis: int, scale: int, like: Tensor) -> Tensor:
        from_edge = torch.arange(1, self.sides[axis] * scale + 1, device=like.device, dtype=like.dtype)
        return (torch.minimum(from_edge, from_edge.flip(0)) / (self.overlap[axis] * scale + 1)).clamp(max=1)


def in_tiles(function: Callable[[Tensor], Tensor], picture_BCYX: Tensor, tiles: Tiles, *, at_once: int = 16) -> Tensor:
    """What `function` makes of a picture, tile by tile: of any size in the memory of a few tiles.

    It is what the whole picture gives as far as no output pixel sees beyond its tile; elsewhere overlaps blend.

    Args:
        function: from (S, C, R, L) to (S, C', R s, L s), s any whole scale: a super-resolution or restoration model.
        tiles: no side larger than the picture's.
        at_once: tiles that `function` gets in one call.

    Raises: ConfigError: a picture smaller than a tile, or outputs of another shape.
    """
    made = torch.cat([function(some) for some in tiles.split(picture_BCYX).split(at_once)])
    scale = max(1, made.shape[-1] // tiles.sides[1])
    return tiles.join(made, (picture_BCYX.shape[2], picture_BCYX.shape[3]), scale=scale)
