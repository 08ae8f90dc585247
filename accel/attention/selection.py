"""Which blocks to keep, from the exact attention mass of every block: pure functions, on any device.

Shapes: B batch, H heads, R blocks of queries, C blocks of keys. A row is a block of queries.

The output of a row that keeps a share r of its mass is o_kept with o = r o_kept + (1 - r) o_dropped, so that the error
is (1 - r) (o_kept - o_dropped): a recall bounds the error, and says it up to what the values do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...kernels.precision import widest

if TYPE_CHECKING:
    from .wanted import Wanted

GOOD_RECALL = 0.8
"""A head above it can spare blocks (AdaSpa, 4.3)."""
ERROR_STARTS_AT = 0.8
"""Recall that a head is tried with before its error is measured."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The kept blocks and what they hold."""

    keep: Tensor
    """bool (B, H, R, C)."""
    recall: Tensor
    """Share of the mass kept (B, H), in the widest type of the device."""
    least_recall: Tensor
    """That of the row with the least, (B, H)."""

    @property
    def density(self) -> Tensor:
        """Share of the blocks kept, (B, H)."""
        return self.keep.to(widest(self.keep.device)).mean((2, 3))


def select(
    mass: Tensor,
    settings: Wanted,
    always: Tensor,
    *,
    recall: Tensor | None = None,
    density: Tensor | None = None,
) -> Selection:
    """Keep what the target of `settings` asks for.

    Args:
        mass: (B, H, R, C), not negative; only its proportions within a row count.
        always: bool (R, C), blocks kept whatever they hold and counted first: those of text.
        recall: (B, H), in the place of the target: the share to keep in every row of a head.
        density: (H), in the place of the target: the share of a head's blocks to keep, on average over its rows.
    """
    target = settings.target
    share = row_shares(mass)
    if recall is not None:
        keep = prefix_rows(share, recall[..., None, None], always)
    elif density is not None:
        whole = (density >= 1.0).to(share.device)[:, None, None]
        keep = prefix_rows(share, recall_of_heads(share, density, always), always) | whole
    elif target.name == "recall":
        if target.value >= 1.0:
            keep = torch.ones_like(share, dtype=torch.bool)
        elif settings.per == "head":
            keep = prefix_heads(share, target.value, always)
        else:
            keep = prefix_rows(share, target.value, always)
    elif target.name == "error":
        keep = prefix_rows(share, ERROR_STARTS_AT, always)
    elif target.name == "density":
        keep = prefix_rows(share, recall_for(share, target.value, always), always)
    else:
        keep = three_levels(share, target.value, always) if settings.head_adaptive else largest(share, target.value)
    keep = keep | always
    if settings.least > 0.0 or settings.most < 1.0:
        keep = clamped(share, keep, always, settings.least, settings.most)
    return measured(share, keep)


def row_shares(mass: Tensor) -> Tensor:
    """Each row's mass as shares of it, in the widest type; an even split where a row holds nothing."""
    mass = mass.to(widest(mass.device))
    total = mass.sum(-1, keepdim=True)
    return torch.where(total > 0, mass / total.clamp_min(torch.finfo(mass.dtype).tiny), 1.0 / mass.shape[-1])


def measured(share: Tensor, keep: Tensor) -> Selection:
    """A selection with the recall that it has."""
    rows = (share * keep).sum(-1).clamp_max(1.0)
    return Selection(keep, rows.mean(-1), rows.amin(-1))


def ordered(share: Tensor, always: Tensor) -> tuple[Tensor, Tensor]:
    """Every row's shares in the order in which they are taken (`always` first, then the largest), and their places."""
    order = (share + 2.0 * always).argsort(dim=-1, descending=True, stable=True)
    return share.gather(-1, order), order


def first_of_each(order: Tensor, count: Tensor) -> Tensor:
    """bool like `order`: the first `count` of each row's places."""
    ranks = torch.arange(order.shape[-1], device=order.device)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order, ranks < count[..., None])


def prefix_rows(share: Tensor, recall: Tensor | float, always: Tensor) -> Tensor:
    """Every row keeps the fewest blocks that hold `recall` of its mass, at least one and those of `always`."""
    taken, order = ordered(share, always)
    before = taken.cumsum(-1) - taken
    # A block is needed while those before it fall short of the target.
    return first_of_each(order, (before < recall).sum(-1).clamp_min(1)) | always


def prefix_heads(share: Tensor, recall: float, always: Tensor) -> Tensor:
    """Every head keeps the fewest blocks that hold `recall` of its mass on average over the rows."""
    rows = share.shape[2]
    # A row without any block would have no output: its best is taken first.
    best = torch.nn.functional.one_hot(share.argmax(-1), share.shape[-1]).bool()
    first = (always | (best & ~always.any(-1, keepdim=True))).flatten(2)
    taken, order = ordered(share.flatten(2), first)
    before = taken.cumsum(-1) - taken
    return (first_of_each(order, (before < recall * rows).sum(-1)) | first).view_as(share)


def recall_of_heads(share: Tensor, density: Tensor, always: Tensor) -> Tensor:
    """What `recall_for` gives each head for a `density` (H) of its own: (B, H, 1, 1)."""
    batch, heads, rows, columns = share.shape
    apart = share.reshape(batch * heads, 1, rows, columns)
    wanted = density.to(share).repeat(batch).view(-1, 1, 1, 1)
    return recall_for(apart, wanted, always).view(batch, heads, 1, 1)


def recall_for(share: Tensor, density: float | Tensor, always: Tensor) -> Tensor:
    """The largest recall that every row can be given with a mean density of at most `density`: maximin (B, 1, 1, 1).

    Every row of the batch has a budget of its own. Blocks of `always`, and one of every row, are paid from it, and kept
    where it is too small for them.
    """
    taken, _ = ordered(share, always)
    before = taken.cumsum(-1) - taken
    forced = always.sum(-1).clamp_min(1)
    wanted = density * before[0].numel()
    low, high = before.new_zeros(len(share), 1, 1, 1), before.new_ones(len(share), 1, 1, 1)
    for _ in range(40):
        middle = (low + high) / 2
        kept = torch.maximum((before < middle).sum(-1), forced).sum((1, 2)).view_as(middle)
        low, high = torch.where(kept <= wanted, middle, low), torch.where(kept <= wanted, high, middle)
    return low


def largest(share: Tensor, sparsity: float | Tensor) -> Tensor:
    """Every row keeps its largest blocks, all rows of a head the same number (AdaSpa, 4.3)."""
    columns = share.shape[-1]
    kept = (1.0 - torch.as_tensor(sparsity, dtype=share.dtype, device=share.device)) * columns
    count = (kept + 0.5).floor().clamp(1, columns).expand(share.shape[:2])
    order = share.argsort(dim=-1, descending=True, stable=True)
    return first_of_each(order, count[..., None].expand(share.shape[:3]))


def three_levels(share: Tensor, sparsity: float, always: Tensor) -> Tensor:
    """Head-adaptive sparsity: the n best heads give what the n worst are given (AdaSpa, 4.3).

    n counts the heads of recall above 0.8 at the base sparsity, at most half of them. Below a sparsity of 1/3 the lower
    level would be negative, and all heads keep the base.
    """
    if 3.0 * sparsity < 1.0:
        return largest(share, sparsity)
    heads = share.shape[1]
    recall = measured(share, largest(share, sparsity) | always).recall
    spare = (recall > GOOD_RECALL).sum(-1, keepdim=True).clamp_max(heads // 2)
    rank = recall.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    level = torch.full_like(recall, sparsity)
    level = torch.where(rank < spare, (1.0 + sparsity) / 2.0, level)
    level = torch.where(rank >= heads - spare, (3.0 * sparsity - 1.0) / 2.0, level)
    return largest(share, level)


def clamped(share: Tensor, keep: Tensor, always: Tensor, least: float, most: float) -> Tensor:
    """`keep` with every row's count brought between `least` and `most` of the columns, by its largest blocks.

    Blocks of `always` count, and are kept beyond the most.
    """
    columns = share.shape[-1]
    low, high = math.ceil(least * columns), max(1, math.floor(most * columns))
    count = keep.sum(-1)
    order = (share + 2.0 * keep + 2.0 * always).argsort(dim=-1, descending=True, stable=True)
    return first_of_each(order, count.clamp(min(low, high), high)) | always


def recall_for_error(recall: Tensor, error: Tensor, accepted: float) -> Tensor:
    """The recall that each head needs to keep within the `accepted` error, from the error measured at `recall`.

    The error is (1 - recall) times a distance that changes little, so it falls with what is dropped. Heads that are
    within it stay as they were tried.
    """
    needed = 1.0 - (1.0 - recall) * accepted / error.clamp_min(1e-12)
    return torch.where(error > accepted, needed.clamp(ERROR_STARTS_AT, 1.0), ERROR_STARTS_AT)
