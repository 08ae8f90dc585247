"""What a mixture has to beat: feed-forward layers cut to their most important units, and blocks taken out for good."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError, InputError
from ..families import find_family
from .dense import Dense
from .features import block_outputs
from .feed_forward import SharedExpert
from .fused import parameter_of


class CutFeedForward(nn.Module):
    """A dense feed-forward layer with its most important hidden units alone.

    Args:
        dense: the layer that is cut; its weights are copied.
        order_H: its hidden units, most important first.
        share: of the hidden units, how many stay.
    """

    def __init__(self, dense: Dense, order_H: Tensor, share: float) -> None:
        super().__init__()
        self.kept = SharedExpert(dense.take(order_H[: max(1, round(share * dense.hidden))]))
        self.bias = None if dense.bias_O is None else parameter_of(dense.bias_O)

    def forward(self, x: Tensor) -> Tensor:
        y = self.kept(x)
        return y if self.bias is None else y + self.bias


def drop_blocks(transformer: nn.Module, places: Sequence[int]) -> None:
    """Take blocks out of `transformer`, in place.

    Raises: ConfigError for a place that there is not, and for the last block: forecasts go by the first and the last.
    """
    blocks = find_family(transformer).blocks(transformer)
    if places and places[-1] >= len(blocks) - 1:
        raise ConfigError(f"block {places[-1]} cannot be dropped: of {len(blocks)}, choose among 1-{len(blocks) - 2}")
    gone = {id(blocks[place][1]) for place in places}
    for path in {stack.path for stack, _ in blocks}:
        parent, _, name = path.rpartition(".")
        owner = transformer.get_submodule(parent)
        setattr(owner, name, nn.ModuleList(b for b in transformer.get_submodule(path) if id(b) not in gone))


def block_changes(transformer: nn.Module, calls: Iterable[Mapping[str, Any]]) -> list[float]:
    """How far each block moves the picture's tokens, relative to their size; the first has no before and counts as 1.

    What a static choice of blocks goes by: those that change least are dropped first.

    Raises: InputError where there is no call.
    """
    sums: list[Tensor] = []
    count = 0
    for call in calls:
        with torch.no_grad(), block_outputs(transformer) as outputs:
            transformer(**call)
        moved = [torch.ones(())]
        for before, after in pairwise(outputs):
            same = before.shape == after.shape
            moved.append((after - before).float().norm() / after.float().norm() if same else torch.ones(()))
        sums = moved if not sums else [total + one for total, one in zip(sums, moved, strict=True)]
        count += 1
    if not count:
        raise InputError("how far blocks move the tokens needs at least one call")
    return [float(total / count) for total in sums]
