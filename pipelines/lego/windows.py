"""A picture as windows of one size, beside each other or overlapping, and back: where they overlap they are averaged.

Legend: B batch, C channels, Y X pixels, S windows (rows of windows first), R pixels of a window's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Square windows that cover a picture.

    Windows that divide the picture lie beside each other; others are moved inwards at its edges and overlap there.
    """

    side: int
    """Pixels of a window's side."""
    overlap: int = 0
    """Pixels that neighbours share at least; each counts the less there the nearer its own edge is."""
    shift: tuple[int, int] = (0, 0)
    """Pixels by which all but the outermost windows are moved up and to the left."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.side:
            raise ConfigError(f"windows of {self.side} pixels cannot overlap by {self.overlap}")

    def split(self, picture_BCYX: torch.Tensor) -> torch.Tensor:
        """The windows of a picture, (B * S, C, R, R). Raises: ConfigError where the picture is smaller than one."""
        batch, channels = picture_BCYX.shape[:2]
        rows, columns = self._places(picture_BCYX.shape[2:], picture_BCYX.device)
        cut = picture_BCYX.index_select(2, rows.flatten()).index_select(3, columns.flatten())
        cut = cut.view(batch, channels, len(rows), self.side, len(columns), self.side)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, self.side, self.side)

    def join(self, windows_SCRR: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """The picture of `size` (rows, columns) whose windows these are, (B, C, Y, X)."""
        rows, columns = self._places(size, windows_SCRR.device)
        weight = self._weight(windows_SCRR)
        parts = windows_SCRR.unflatten(0, (-1, len(rows), len(columns))).permute(0, 3, 1, 4, 2, 5)
        batch, channels = parts.shape[:2]
        parts = parts * weight[:, None, None] * weight if self.overlap else parts
        tall = parts.new_zeros(batch, channels, size[0], columns.numel())
        tall = tall.index_add(2, rows.flatten(), parts.reshape(batch, channels, rows.numel(), columns.numel()))
        whole = parts.new_zeros(batch, channels, *size).index_add(3, columns.flatten(), tall)
        down, across = (
            weight.new_zeros(length).index_add(0, places.flatten(), weight.repeat(len(places)))
            for length, places in zip(size, (rows, columns), strict=True)
        )
        return whole / (down[:, None] * across)

    def count(self, size: tuple[int, int]) -> int:
        """How many windows cover a picture of `size`."""
        return len(self._starts(size[0], self.shift[0])) * len(self._starts(size[1], self.shift[1]))

    def _places(self, size: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        inside = torch.arange(self.side, device=device)
        rows, columns = (
            torch.tensor(self._starts(length, shift), device=device)[:, None] + inside
            for length, shift in zip(size, self.shift, strict=True)
        )
        return rows, columns

    def _starts(self, length: int, shift: int) -> list[int]:
        if length < self.side:
            raise ConfigError(
                f"a side of {length} is smaller than this model's brick of {self.side}; choose a larger one"
            )
        last, stride = length - self.side, self.side - self.overlap
        return sorted({min(max(start, 0), last) for start in range(-(shift % stride), last + stride, stride)})

    def _weight(self, like: torch.Tensor) -> torch.Tensor:
        from_edge = torch.arange(1, self.side + 1, device=like.device, dtype=like.dtype)
        return (torch.minimum(from_edge, from_edge.flip(0)) / (self.overlap + 1)).clamp(max=1)
