"""Attention inside boxes of a grid of tokens: within a frame, across frames, in windows of a volume, or over all of it.

The processors that diffusers' attention layers take, on the window attention of `outpace.kernels`.

Legend: B batch, N tokens of a grid (frames or depth, rows, columns; the last axis fastest), D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..kernels.attention import attend
from ..kernels.attention.windows import into_windows, window_attention

Three = tuple[int, int, int]


class BoxAttention:
    """An attention processor of diffusers that lets a token see only its own box; call it with `grid=(T, Y, X)`.

    (1, 0, 0) keeps frames apart, (0, 1, 1) joins each place over time, (2, 2, 2) is a window of a volume, (0, 0, 0) is
    attention over everything. A 0 takes the whole axis; boxes that do not fill a grid are cut at its ends.
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
        q, k, v = (
            layer(hidden_states).unflatten(-1, (attn.heads, -1)).unflatten(1, grid)
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        window = tuple(min(side or length, length) for side, length in zip(self.box, grid, strict=True))
        return _out(attn, window_attention(q, k, v, window=window).flatten(1, 3))


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
        boxes = into_windows(hidden_states.unflatten(1, grid), (self.side, self.side, self.side))
        few = self.reduce(boxes.flatten(2))
        q, k, v = (
            layer(rows).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, rows in ((attn.to_q, hidden_states), (attn.to_k, few), (attn.to_v, few))
        )
        return _out(attn, attend(q, k, v).transpose(1, 2))


def _out(attn: Any, mixed_BNHD: torch.Tensor) -> torch.Tensor:
    return attn.to_out[1](attn.to_out[0](mixed_BNHD.flatten(2)))
