"""What a static pattern keeps of one attention: the nearest blocks, no mass searched.

Shapes: B batch, H query heads, G key heads, N tokens, D width, R and C blocks of queries and keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..patterns import PATTERNS, Places
from .layout import Layout
from .selection import first_of_each

ASKED = 64
"""Queries of a head by which it takes its pattern, where there are several."""


def blocks_of(layout: Layout, tokens: int, blocks: tuple[int, int]) -> Places:
    """Where the blocks of an attention lie. Tokens beside the picture, which are always kept, count as its corner."""
    frames, height, width = grid = layout.grid or (1, 1, tokens)
    order = torch.arange(tokens) if layout.order is None else layout.order.cpu()
    place = (order - layout.first).clamp(0, frames * height * width - 1)
    at = torch.stack([place // (height * width), place // width % height, place % width], dim=1).float()
    middles = [torch.stack([part.mean(0) for part in at.split(size)]) for size in blocks]
    return Places(queries=middles[0], keys=middles[1], grid=grid)


def nearest(distance: Tensor, density: float, always: Tensor) -> Tensor:
    """bool (R, C): of every row the nearest blocks, the same number in each, and those of `always`."""
    columns = distance.shape[-1]
    count = torch.full(distance.shape[:-1], max(1, round(density * columns)))
    return first_of_each(distance.argsort(dim=-1, stable=True), count) | always


def laid_down(
    q: Tensor, k: Tensor, pattern: str, density: float, layout: Layout, blocks: tuple[int, int], scale: float | None
) -> Tensor:
    """What a pattern keeps: bool (B, H, R, C)."""
    batch, heads, tokens, _ = q.shape
    places = blocks_of(layout, tokens, blocks)
    masks = [nearest(of(places), density, layout.always.cpu()).to(q.device) for of in PATTERNS[pattern].distances]
    if len(masks) == 1:
        return masks[0].expand(batch, heads, -1, -1)
    best = held(q, k, masks, blocks, scale).argmax(0)
    return torch.stack(masks)[best]


def held(q: Tensor, k: Tensor, masks: list[Tensor], blocks: tuple[int, int], scale: float | None) -> Tensor:
    """Share of the mass of some queries that each mask keeps: (masks, B, H)."""
    tokens, ratio = q.shape[2], q.shape[1] // k.shape[1]
    asked = torch.arange(0, tokens, max(1, tokens // ASKED), device=q.device)
    scores = q.index_select(2, asked).float() @ k.float().repeat_interleave(ratio, 1).transpose(2, 3)
    weights = (scores * (q.shape[-1] ** -0.5 if scale is None else scale)).softmax(-1)
    columns = masks[0].shape[-1]
    by_block = F.pad(weights, (0, columns * blocks[1] - tokens)).unflatten(3, (columns, blocks[1])).sum(-1)
    return torch.stack([(by_block * mask[asked // blocks[0]]).sum(-1).mean(-1) for mask in masks])
