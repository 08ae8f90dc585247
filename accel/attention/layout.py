"""Where the tokens of an attention lie: text, picture grid, padding; and the order in which blocks visit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..families import Family

Grid = tuple[int, int, int]
"""Tokens of a video along time, height and width; a picture has one frame."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tokens of one attention are visited."""

    order: Tensor | None
    """int64 (N): the token visited at each place; None where they stay as they are."""
    back: Tensor | None
    """Its inverse."""
    always: Tensor
    """bool (R, C): blocks that are kept whatever they hold, those with text in them."""
    grid: Grid | None = None
    """That of the picture, where it is known."""
    first: int = 0
    """The picture's first token."""

    def visit(self, x: Tensor) -> Tensor:
        """Tokens (B, H, N, D) in the order of the blocks."""
        return x if self.order is None else _taken(x, self.order)

    def undo(self, x: Tensor) -> Tensor:
        """Tokens (B, H, N, D) in the order of the model."""
        return x if self.back is None else _taken(x, self.back)


def _taken(x: Tensor, order: Tensor) -> Tensor:
    # diffusers keeps (B, N, H, D) in memory, where all heads of a token are moved at once.
    return x.transpose(1, 2).index_select(1, order).transpose(1, 2)


def token_grid(transformer: nn.Module, family: Family, named: dict[str, Any]) -> Grid | None:
    """The grid of the picture's tokens in a call of `transformer`; None where the arguments do not tell."""
    latents, config = named.get(family.latents), getattr(transformer, "config", {})
    if isinstance(latents, (list, tuple)):
        latents = latents[0][None] if latents and isinstance(latents[0], Tensor) else None
    if not isinstance(latents, Tensor):
        return None
    patch = _patch(config)
    if latents.ndim == 5:
        frames, height, width = (
            (latents.shape[1], *latents.shape[3:]) if family.frames_first else tuple(latents.shape[2:])
        )
        return (frames // patch[0] or 1, height // patch[1], width // patch[2])
    if latents.ndim == 4:
        return (1, latents.shape[2] // patch[1], latents.shape[3] // patch[2])
    sizes = None if family.grid is None else family.grid(named)
    return None if sizes is None else _product_of(latents, sizes)


def _patch(config: Any) -> tuple[int, int, int]:
    """Latents that one token covers along time, height and width."""

    def one(value: Any) -> int:
        return int(value[0]) if isinstance(value, (list, tuple)) else int(value)

    size, in_time = config.get("patch_size", config.get("all_patch_size", 1)) or 1, config.get("patch_size_t")
    if isinstance(size, (list, tuple)) and len(size) == 3:
        return (int(size[0]), int(size[1]), int(size[2]))
    in_time = in_time if in_time is not None else config.get("all_f_patch_size", 1)
    return (one(in_time or 1), one(size), one(size))


def _product_of(latents: Tensor, sizes: Sequence[int]) -> Grid | None:
    """`sizes` as a grid where they account for the packed tokens (B, N, C)."""
    grid = (int(sizes[0]), int(sizes[1]), int(sizes[2]))
    return grid if grid[0] * grid[1] * grid[2] == latents.shape[1] else None


def tile_order(grid: Grid, block: int) -> Tensor:
    """The tokens of a grid, tile by tile: int64 (T * Y * X).

    A tile holds `block` tokens: 4 x 4 x 4 of a video and 8 x 8 of a picture for 64. Where the grid is no multiple of
    the tile the last tiles are thinner, and blocks run on into the next.
    """
    frames, height, width = grid
    sides = {16: (4, 2, 2), 32: (4, 4, 2), 64: (4, 4, 4), 128: (8, 4, 4)}[block]
    if frames == 1:
        sides = {16: (1, 4, 4), 32: (1, 8, 4), 64: (1, 8, 8), 128: (1, 16, 8)}[block]
    place = torch.arange(frames * height * width)
    t, y, x = place // (height * width), place // width % height, place % width
    key = torch.zeros_like(place)
    for value, side, size in ((t, sides[0], frames), (y, sides[1], height), (x, sides[2], width)):
        key = key * (size // side + 1) + value // side
    return key.argsort(dim=0, stable=True)


def make_layout(
    tokens: int,
    block: int | tuple[int, int],
    *,
    grid: Grid | None,
    picture: int | None,
    text: str,
    tile: bool,
    padding: Tensor | None,
    device: torch.device,
) -> Layout:
    """The layout of an attention over `tokens`.

    Args:
        block: tokens of a block of queries and of keys, one number where they are the same. Tiles are of the queries';
            where blocks of keys are a part of that, they are thinner tiles of the same place.
        grid: that of the picture, where known.
        picture: how many tokens are the picture's, where known; the others are text. By default those of the grid.
        text: "start" or "end": where text lies beside the picture.
        padding: bool (N), True for keys that are masked; they are visited last, or None.
    """
    query_block, key_block = (block, block) if isinstance(block, int) else block
    size = grid[0] * grid[1] * grid[2] if grid is not None else 0
    picture = picture or (size if 0 < size < tokens else tokens)
    if size != picture:
        grid = None
    first = tokens - picture if text == "start" else 0  # the picture's first token
    if padding is not None:
        padding = padding.cpu()
        if text == "start":  # a text shorter than that of another row leaves its padding behind the picture
            first = max(0, first - int(padding.flip(0).long().cumprod(0).sum()))
    order = torch.arange(tokens)
    beside = torch.ones(tokens, dtype=torch.bool)
    beside[first : first + picture] = False
    if (tile and grid is not None) or padding is not None:
        inside = tile_order(grid, query_block) if tile and grid is not None else torch.arange(picture)
        order = torch.cat([inside + first, order[beside]])
    is_text = beside
    if padding is not None:
        order = order[padding[order].long().argsort(dim=0, stable=True)]
        is_text = beside & ~padding
    rows, columns = (
        torch.nn.functional.pad(is_text[order], (0, -tokens % size)).view(-1, size).any(1)
        for size in (query_block, key_block)
    )
    always = rows[:, None] | columns[None, :]
    if torch.equal(order, torch.arange(tokens)):
        return Layout(None, None, always.to(device), grid, first)
    return Layout(order.to(device), order.argsort().to(device), always.to(device), grid, first)
