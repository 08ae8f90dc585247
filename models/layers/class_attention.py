"""Attention of one token to all others, in which a task can keep units to itself.

Source: Touvron et al., 2021, arXiv:2103.17239 (class attention); Serra et al., 2018, arXiv:1801.01423 (gates and their
gradients); Cotogni et al., 2022, arXiv:2211.12292 (both together).
Shapes: B batch, N tokens, D width, H hidden units.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError
from ...kernels.attention import attend
from ..companion import check_divides

Open = tuple[Tensor, Tensor]
"""How far units are open, from 0 to 1: of the width (D,), of the hidden layer (H,)."""


class TaskGates(nn.Module):
    """Which units each task uses: numbers that are learned, whose sigmoid becomes a step as its scale grows."""

    def __init__(self, tasks: int, width: int, hidden: int, largest_scale: float) -> None:
        super().__init__()
        self.width, self.hidden = nn.Parameter(torch.randn(tasks, width)), nn.Parameter(torch.randn(tasks, hidden))
        self.largest_scale = largest_scale

    def forward(self, task: int, scale: float | None = None) -> Open:
        """A task's gates at a scale; 0 or 1 where that is None."""
        e, f = self.width[task], self.hidden[task]
        if scale is None:
            return (e > 0).to(e.dtype), (f > 0).to(f.dtype)
        return (scale * e).sigmoid(), (scale * f).sigmoid()

    def scale_at(self, progress: float) -> float:
        """From soft to hard as `progress` through an epoch goes from 0 to 1."""
        return (self.largest_scale - 1 / self.largest_scale) * progress + 1 / self.largest_scale

    @torch.no_grad()
    def used_before(self, task: int) -> Open:
        """1 where any earlier task has its gate open."""
        used = [self(earlier) for earlier in range(task)] or [(self.width[0] * 0, self.hidden[0] * 0)]
        return torch.stack([w for w, _ in used]).amax(0), torch.stack([h for _, h in used]).amax(0)

    def share_of_free(self, task: int, scale: float) -> Tensor:
        """How much of what no earlier task uses this one takes, from 0 to 1."""
        gates, free = torch.cat(self(task, scale)), 1 - torch.cat(self.used_before(task))
        return (gates * free).sum() / free.sum().clamp(min=1)

    @torch.no_grad()
    def compensate(self, scale: float) -> None:
        """Make gradients those of a sigmoid of scale 1, times the largest: at a hard gate there is next to none."""
        for e in (self.width, self.hidden):
            if e.grad is not None:
                flattened = ((scale * e).clamp(-50, 50).cosh() + 1) / (e.cosh() + 1)
                e.grad *= self.largest_scale / scale * flattened

    @torch.no_grad()
    def stay_near(self) -> None:
        """Keep the numbers where a sigmoid still has a slope."""
        self.width.clamp_(-6, 6)
        self.hidden.clamp_(-6, 6)


class GatedClassBlock(nn.Module):
    """A token attends to itself and all others, then goes through a network; closed units take no part."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        check_divides("width over heads", width, heads)
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)

    def forward(self, token_B1D: Tensor, x_BND: Tensor, gates: Open | None = None) -> Tensor:
        """The token (B, 1, D) after both; every gate is open where `gates` is None.

        Raises: ConfigError: gates of other sizes.
        """
        w, h = (torch.ones_like(self.out.bias), torch.ones_like(self.up.bias)) if gates is None else gates
        if (sizes := (w.shape, h.shape)) != (self.out.bias.shape, self.up.bias.shape):
            raise ConfigError(f"gates are one for each unit of the width and the hidden layer, not {sizes}")
        z = self.norm1(torch.cat([token_B1D, x_BND], 1)) * w
        q, k, v = (
            (part(tokens) * w).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, tokens in ((self.query, z[:, :1]), (self.key, z), (self.value, z))
        )
        token = token_B1D + self.out(attend(q, k, v).transpose(1, 2).flatten(-2)) * w
        return token + self.down(F.gelu(self.up(self.norm2(token) * w)) * h) * w

    def protect(self, used: Open) -> None:
        """Take from the gradients all that would change an output under the gates `used`, which are 0 or 1."""
        w, h = used
        sides = ((self.query, w, w), (self.key, w, w), (self.value, w, w), (self.out, w, w), (self.up, h, w),
                 (self.down, w, h))  # fmt: skip
        for part, rows, columns in sides:
            if part.weight.grad is not None:
                part.weight.grad *= 1 - rows[:, None] * columns
            if part.bias is not None and part.bias.grad is not None:
                part.bias.grad *= 1 - rows
