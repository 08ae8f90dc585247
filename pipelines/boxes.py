"""Attention inside boxes of a grid of tokens: within a frame, across frames, in windows of a volume, or over all of it.

Legend: B batch, N tokens of a grid (frames or depth, rows, columns; the last axis fastest), D width, W boxes,
R tokens of one box.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError

Three = tuple[int, int, int]


def to_boxes(tokens_BND: torch.Tensor, grid: Three, box: Three) -> torch.Tensor:
    """The tokens of each box of a grid beside each other, (B * W, R, D); a grid that boxes do not fill is padded.

    Args:
        box: tokens of a box along each axis; 0 takes the whole axis.
    """
    sides = _sides(grid, box)
    tokens = tokens_BND.unflatten(1, grid)
    padding = [-length % side for length, side in zip(grid, sides, strict=True)]
    if any(padding):
        tokens = F.pad(tokens, (0, 0, 0, padding[2], 0, padding[1], 0, padding[0]))
    for axis, side in ((3, sides[2]), (2, sides[1]), (1, sides[0])):
        tokens = tokens.unflatten(axis, (-1, side))
    return tokens.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(0, 3)


def from_boxes(boxes_WRD: torch.Tensor, grid: Three, box: Three) -> torch.Tensor:
    """The tokens that `to_boxes` took apart, (B, N, D), without the padding."""
    sides = _sides(grid, box)
    counts = [-(-length // side) for length, side in zip(grid, sides, strict=True)]
    tokens = boxes_WRD.unflatten(1, sides).unflatten(0, (-1, *counts)).permute(0, 1, 4, 2, 5, 3, 6, 7)
    tokens = tokens.flatten(5, 6).flatten(3, 4).flatten(1, 2)
    return tokens[:, : grid[0], : grid[1], : grid[2]].flatten(1, 3)


def real_tokens(grid: Three, box: Three, device: torch.device) -> torch.Tensor | None:
    """Which tokens of each box are of the grid rather than padding, (W, R); None where all are."""
    if not any(length % side for length, side in zip(grid, _sides(grid, box), strict=True)):
        return None
    ones = torch.ones(1, grid[0] * grid[1] * grid[2], 1, device=device)
    return to_boxes(ones, grid, box)[..., 0].bool()


class BoxAttention:
    """An attention processor of diffusers that lets a token see only its own box; call it with `grid=(T, Y, X)`.

    (1, 0, 0) keeps frames apart, (0, 1, 1) joins each place over time, (2, 2, 2) is a window of a volume, (0, 0, 0) is
    attention over everything.
    """

    def __init__(self, box: Three) -> None:
        if len(box) != 3 or min(box) < 0:
            raise ConfigError(f"a box of {box} tokens: give three sizes, each 0 (the whole axis) or more")
        self.box = box

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        grid: Three = (1, 1, 1),
    ) -> torch.Tensor:
        boxes = to_boxes(hidden_states, grid, self.box)
        real = real_tokens(grid, self.box, boxes.device)
        if real is not None:
            real = real.repeat(len(hidden_states), 1)[:, None, None]
        return from_boxes(attend(attn, boxes, boxes, real), grid, self.box)


class ReducedAttention(nn.Module):
    """An attention processor in which every token sees the whole grid, each box of it summed up in one key and value.

    Source: Mo et al., "DiT-3D", NeurIPS 2023, arXiv:2307.01831, equation 3; the reduction is that of Wang et al.,
    "Pyramid Vision Transformer", 2021, arXiv:2102.12122. It starts as the mean of a box.
    """

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.reduce = nn.Linear(side**3 * width, width)
        with torch.no_grad():
            self.reduce.weight.copy_(torch.eye(width).repeat(1, side**3) / side**3)
            self.reduce.bias.zero_()

    def __call__(  # diffusers reads the names of its arguments to know what to hand on
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        grid: Three = (1, 1, 1),
    ) -> torch.Tensor:
        boxes = to_boxes(hidden_states, grid, (self.side, self.side, self.side))
        few = self.reduce(boxes.flatten(1)).unflatten(0, (len(hidden_states), -1))
        return attend(attn, hidden_states, few, None)


def attend(attn: Any, query: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention of diffusers' `attn` from every row of `query` to all of `seen`; `mask` is true where it may look."""
    q, k, v = (
        layer(rows).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        for layer, rows in ((attn.to_q, query), (attn.to_k, seen), (attn.to_v, seen))
    )
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))


def _sides(grid: Three, box: Three) -> Three:
    return (box[0] or grid[0], box[1] or grid[1], box[2] or grid[2])
