"""What one row of a batch remembers of its computed steps, and the forecasts made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from ..kernels.forecast import combine, lagrange_weights, leave_one_out, relative_error, taylor_weights

LARGEST_WEIGHT_SUM = 8.0
"""A forecast whose absolute weights add up to more amplifies noise of its anchors more than that; its order is lowered."""

PROBE_TOKENS = 512
"""At most about this many tokens are looked at when orders are compared."""


@dataclass(slots=True)
class Anchor:
    """One computed step: coordinate, output of the first block, output of the last block. Shapes: N D each."""

    at: float
    first: torch.Tensor | None
    last: torch.Tensor


@dataclass(slots=True)
class History:
    """The computed steps of one row, newest first, and what was spent since the last of them."""

    order: int | None
    """Degree of the forecast; None chooses it at every computed step by leave-one-out error."""
    max_order: int
    exact: bool = True
    anchors: list[Anchor] = field(default_factory=list)
    skipped: int = 0
    spent: float = 0.0
    chosen: int = 1
    scores: dict[int, float] = field(default_factory=dict)

    def clear(self) -> None:
        self.anchors.clear()
        self.scores.clear()
        self.skipped, self.spent, self.chosen = 0, 0.0, 1

    def weights(self, at: float) -> list[float]:
        """Weights of the newest anchors for a forecast at `at`; the order is what the anchors and the noise allow."""
        wanted = self.chosen if self.order is None else self.order
        nodes = [a.at for a in self.anchors[: wanted + 1]]
        rule = lagrange_weights if self.exact else taylor_weights
        while True:
            weights = rule(nodes, at)
            if len(nodes) == 1 or sum(abs(w) for w in weights) <= LARGEST_WEIGHT_SUM:
                return weights
            nodes = nodes[:-1]

    def first(self, weights: list[float]) -> torch.Tensor | None:
        """The first block's output that `weights` forecast, or None where an anchor lacks it."""
        values = [a.first for a in self.anchors[: len(weights)]]
        kept = [v for v in values if v is not None]
        return combine(kept, weights) if len(kept) == len(values) else None

    def last(self, weights: list[float]) -> torch.Tensor:
        """The last block's output that `weights` forecast."""
        return combine([a.last for a in self.anchors[: len(weights)]], weights)

    def push(self, at: float, first: torch.Tensor | None, last: torch.Tensor) -> None:
        """Remember a computed step; choose the order for the stretch that follows."""
        if self.anchors and self.anchors[0].at == at:
            self.anchors.pop(0)
        self.anchors.insert(0, Anchor(at, first, last))
        self.skipped, self.spent = 0, 0.0
        if self.order is None:
            self._choose()
        keep = (self.max_order + 2) if self.order is None else self.order + 1
        del self.anchors[keep:]

    def _choose(self) -> None:
        # How far off would each order have been at the newest anchor? Averaged over the run, so that one lucky
        # crossing does not decide.
        stride = max(1, self.anchors[0].last.shape[0] // PROBE_TOKENS)
        values = [a.last[::stride] for a in self.anchors]
        nodes = [a.at for a in self.anchors]
        errors = {
            order: relative_error(combine(values, leave_one_out(nodes, order) + [0.0] * (len(values) - order - 2)), values[0])
            for order in range(1, self.max_order + 1)
            if len(values) >= order + 2
        }
        if not errors:
            self.chosen = min(1, self.max_order)
            return
        for order, error in zip(errors, torch.stack(list(errors.values())).tolist(), strict=True):
            before = self.scores.get(order)
            self.scores[order] = error if before is None else 0.5 * before + 0.5 * error
        self.chosen = min(self.scores, key=lambda order: self.scores[order])
