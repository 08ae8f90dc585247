"""What one row of a batch remembers of its computed steps, and the forecasts made from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ...kernels.forecast import combine, lagrange_weights, taylor_weights
from ..ranks import Ranks, every, whole_error
from .rounding import without_rounding

LARGEST_WEIGHT_SUM = 8.0
"""A forecast whose absolute weights add up to more amplifies its anchors' noise; its order is lowered."""

PROBE_TOKENS = 512
"""At most about this many tokens are looked at when orders are compared."""


@dataclass(slots=True)
class Anchor:
    """One computed step: coordinate, number, output of the first block, output of the last block. Shapes: N D each."""

    at: float
    step: int
    first: torch.Tensor | None
    last: torch.Tensor


@dataclass(slots=True)
class History:
    """The computed steps of one row, newest first, and what was spent since the last of them."""

    order: float | None
    """Degree of the forecast; None takes the one whose predicted error is least. Between two whole numbers the
    forecasts of both are mixed: 0.25 is three quarters of order 0 and one quarter of order 1."""
    max_order: int
    exact: bool = True
    gate_order: int | None = None
    """Degree of the first block's forecast; None takes that of the last block's."""
    anchors: list[Anchor] = field(default_factory=list)
    pushed: int = 0
    """Computed steps since the history began."""
    skipped: int = 0
    spent: float = 0.0
    rates: dict[int, float] = field(default_factory=dict)
    """For each order, its last-block error divided by the product of distances to its nodes: the size of the next
    derivative, measured at every computed step by leaving that step out."""
    expected: float | None = None
    """Error that was predicted when a forecast was last asked for, for the trace."""
    rated: bool = True
    """False where nobody asks for predicted errors, so that none is measured, and `order` changes from run to run."""
    ranks: Ranks | None = None
    """The processes that hold the other parts of what is remembered here, None where it is whole."""
    noise: float = 0.0
    """What rounding leaves in `last`, relative to its size; see rounding.py."""
    first_noise: float = 0.0
    """The same in `first`."""
    reach: int = 0
    """Length of the run of forecasts before the newest computed step."""

    def clear(self) -> None:
        self.anchors.clear()
        self.rates.clear()
        self.pushed, self.skipped, self.spent, self.reach = 0, 0, 0.0, 0
        self.expected = None

    @property
    def capacity(self) -> int:
        """Computed steps that are remembered: one more than the highest degree that may be asked for."""
        highest = self.max_order if self.order is None or not self.rated else math.ceil(self.order)
        return max(highest, self.gate_order or 0) + 1

    def orders(self, anchors: int | None = None) -> list[int]:
        """Orders that the anchors allow, or as many of them as are given; none without any."""
        count = len(self.anchors) if anchors is None else anchors
        highest = min(self.max_order if self.order is None else math.ceil(self.order), count - 1)
        if highest < 0:
            return []
        return [highest] if self.order is not None else list(range(min(1, highest), highest + 1))

    def predicted_error(self, at: float, order: int) -> float | None:
        """Relative L1 error to expect of a forecast at `at`, from the rate measured last; None before any was."""
        rate = self.rates.get(order)
        return None if rate is None else rate * math.prod(abs(at - a.at) for a in self.anchors[: order + 1])

    def best_order(self, at: float) -> int:
        known = {o: e for o in self.orders() if (e := self.predicted_error(at, o)) is not None}
        return min(known, key=lambda o: known[o]) if known else self.orders()[0]

    def weights(self, at: float, order: int | None = None) -> list[float]:
        """Weights of the newest anchors for a forecast at `at`.

        The order is `order`, or the best, as far as the anchors and their noise allow.
        """
        if order is None and self.order is not None and self.order != int(self.order):
            low, share = int(self.order), self.order - int(self.order)
            below, above = self.weights(at, low), self.weights(at, low + 1)
            below = [*below, *([0.0] * (len(above) - len(below)))]
            return [(1.0 - share) * b + share * a for a, b in zip(above, below, strict=True)]
        order = self.best_order(at) if order is None else order
        nodes = [a.at for a in self.anchors[: order + 1]]
        rule = lagrange_weights if self.exact else taylor_weights
        while True:
            weights = rule(nodes, at)
            if len(nodes) == 1 or sum(abs(w) for w in weights) <= LARGEST_WEIGHT_SUM:
                return weights
            nodes = nodes[:-1]

    def first_error(self, at: float, weights: list[float], truth: torch.Tensor) -> torch.Tensor | None:
        """Relative error of the first block's output forecast at `at`, a scalar; None where an anchor lacks it.

        Args:
            weights: those of the last block's forecast, used where no order of its own is set.
        """
        weights = self._first_weights(at, weights)
        values = [a.first for a in self.anchors[: len(weights)]]
        kept = [v for v in values if v is not None]
        return whole_error(kept, weights, truth, self.ranks) if len(kept) == len(values) else None

    def first_missed(self, at: float, weights: list[float], error: float) -> float:
        """What is left of `first_error`, read, without the rounding in it."""
        return without_rounding(error, self.first_noise, self._first_weights(at, weights))

    def _first_weights(self, at: float, weights: list[float]) -> list[float]:
        return weights if self.gate_order is None else self.weights(at, self.gate_order)

    def last(self, weights: list[float]) -> torch.Tensor:
        """The last block's output that `weights` forecast."""
        return combine([a.last for a in self.anchors[: len(weights)]], weights)

    def measured(self, at: float, last: torch.Tensor) -> list[torch.Tensor]:
        """How far off a forecast of each of `orders()` proves at a step that was computed: scalars, not read yet.

        A step at the level of the newest anchor takes its place, and is measured from those before.
        """
        anchors = self._before(at)
        if not anchors or not self.rated:
            return []
        chosen = every(PROBE_TOKENS, last.shape[0], self.ranks)
        nodes = [a.at for a in anchors]
        values = [a.last[chosen] for a in anchors]
        return [
            whole_error(values[: o + 1], lagrange_weights(nodes[: o + 1], at), last[chosen], self.ranks)
            for o in self.orders(len(anchors))
        ]

    def learn(self, at: float, errors: Sequence[float]) -> None:
        """Take to heart how well each order would have forecast a step: what `measured` gave, read."""
        nodes = [a.at for a in self._before(at)]
        for order, error in zip(self.orders(len(nodes)) if errors else [], errors, strict=True):
            missed = without_rounding(error, self.noise, lagrange_weights(nodes[: order + 1], at))
            rate = missed / max(math.prod(abs(at - node) for node in nodes[: order + 1]), 1e-30)
            before = self.rates.get(order)
            self.rates[order] = rate if before is None else math.sqrt(before * rate)

    def _before(self, at: float) -> list[Anchor]:
        return self.anchors[1:] if self.anchors and self.anchors[0].at == at else self.anchors

    def make_room(self, at: float) -> None:
        """Free what a step at `at` takes the place of, before copies of it are made: a run's most is then its usual."""
        if self.anchors and self.anchors[0].at == at:
            self.anchors.pop(0)
        del self.anchors[self.capacity - 1 :]

    def push(self, at: float, step: int, first: torch.Tensor | None, last: torch.Tensor) -> None:
        """Remember a computed step."""
        self.make_room(at)
        self.anchors.insert(0, Anchor(at, step, first, last))
        self.pushed += 1
        self.reach, self.skipped, self.spent = self.skipped, 0, 0.0
