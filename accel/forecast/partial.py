"""Partial steps: the first blocks are computed, and of the others it is forecast what they add to that.

Whole steps divide the work of a run coarsely: a third of 20 steps is 6 and two thirds. In a partial step the first d
blocks run on the latents of the step. Blocks add to the tokens that pass through them, so what is forecast is the sum
that the others add: the last block's output forecast, plus what the d-th block gave less its own forecast.

Shapes: rows of a stream, N D each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from ...kernels.forecast import combine
from .history import History


@dataclass(slots=True)
class Partial:
    """What is computed of forecast samples in the denoiser call that is under way."""

    depth: dict[int, int] = field(default_factory=dict)
    """Blocks to run, by sample; none of those that run no block."""
    ending: dict[int, list[int]] = field(default_factory=dict)
    """Rows whose partial steps end with a block, by the block's place, where they run it in this call."""
    reached: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)
    """What the last of them gave, by stream and row."""

    def samples(self, index: int) -> list[int]:
        """Forecast samples that run block `index` all the same."""
        return [sample for sample, depth in self.depth.items() if depth > index]

    def blocks(self, samples: int) -> list[int]:
        """Blocks run of each sample that is forecast."""
        return [self.depth.get(sample, 0) for sample in range(samples)] if self.depth else []

    def added(self, stream: str, row: int, history: History, weights: Sequence[float]) -> torch.Tensor | None:
        """What the first blocks gave beyond its forecast; None for a row that ran none."""
        reached = self.reached.get((stream, row))
        known = None if reached is None else kept(history, len(weights))
        return None if reached is None or known is None else reached - combine(known, list(weights)).to(reached.dtype)


def kept(history: History, count: int) -> list[torch.Tensor] | None:
    """What the first blocks gave at the newest `count` computed steps; None where any was not kept."""
    found = [anchor.first for anchor in history.anchors[:count]]
    whole = [first for first in found if first is not None]
    return whole if len(whole) == len(found) == count else None


def comparable(first: torch.Tensor | None, last: torch.Tensor) -> bool:
    """Whether blocks add to what `first` holds, so that it is of the shape of what the last one gave."""
    return first is None or first.shape == last.shape


def possible(histories: Iterable[History], count: int) -> bool:
    """Whether every row of a sample has what a partial step is forecast from."""
    return all(kept(history, count) is not None for history in histories)
