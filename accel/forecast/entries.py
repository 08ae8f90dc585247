"""Steps as a scheduler took them, and the arithmetic on their latents that forecasts and corrections are made of.

A batch is worked on together wherever its rows were computed at the same steps: `Group` picks those rows, once, and
from there on every operation is over all of them. Where they differ in how much each step counts (orders and degrees
between whole numbers are measured by every row for itself), a weight is one number a row. Nothing is ever added up over
rows, so that none depends on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from ...kernels.forecast import lagrange_weights
from ..prediction import Prediction

HIGHEST = 2
"""Degrees of a replay go up to this one, and so do the orders and degrees that are measured."""

Weights = Sequence[float] | Sequence[torch.Tensor]
"""How much each of several values counts: in all rows alike, or by row, (R, 1, ...) each."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class Entry:
    """One scheduler step as it was taken. Shapes: all tensors like the latents."""

    step: int
    u: float
    computed: list[bool]
    seen: torch.Tensor
    """The latents that the denoiser was given."""
    clean: torch.Tensor
    """The clean picture that the denoiser's output predicts from `seen`; of use where the row was computed."""
    sample: torch.Tensor
    """The latents that the solver stepped from: `seen`, or corrected."""
    call: dict[str, Any]
    scheduler: Any = None
    """A copy of the scheduler as it stood before the step."""
    result: torch.Tensor | None = None
    held: torch.Tensor | None = None
    """The clean picture at `at`, where that is not `seen`."""
    at: torch.Tensor | None = None
    """The latents that what is forecast or interpolated from here belongs to, where these are not `seen`."""

    @property
    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents and the clean picture there that forecasts and interpolations are made from."""
        return (self.seen if self.at is None else self.at), (self.clean if self.held is None else self.held)

    def hold(self, clean: torch.Tensor, group: Group) -> None:
        """Let the rows of `group` belong to the corrected latents from now on, with the clean pictures given."""
        at, held = self.pair
        self.at, self.held = group.into(at, group.of(self.sample)), group.into(held, clean)

    def of(self, group: Group) -> Entry:
        """The step in the rows of `group`, without what only the solver needs."""
        if group.index is None:
            return self
        return replace(
            self,
            computed=[self.computed[row] for row in group.rows],
            seen=group.of(self.seen),
            clean=group.of(self.clean),
            sample=group.of(self.sample),
            call={},
            scheduler=None,
            result=None,
            held=None if self.held is None else group.of(self.held),
            at=None if self.at is None else group.of(self.at),
        )


class Group:
    """Rows of a batch that are worked on together.

    Args:
        like: a tensor of the whole batch.
    """

    def __init__(self, rows: list[int], like: torch.Tensor) -> None:
        self.rows = rows
        whole = rows == list(range(len(like)))
        self.index = None if whole else torch.tensor(rows).to(like.device, non_blocking=True)

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """The rows of a tensor of the whole batch."""
        return x if self.index is None else x.index_select(0, self.index)

    def into(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """A tensor of the whole batch with these rows from `new`, which has no others, and the rest from `old`."""
        new = new.to(old.dtype)
        return new if self.index is None else old.index_copy(0, self.index, new)


def grouped(rows: Iterable[int], key: Callable[[int], Key | None]) -> dict[Key, list[int]]:
    """Rows by what they have in common; those that have None are left out."""
    found: dict[Key, list[int]] = {}
    for row in rows:
        common = key(row)
        if common is not None:
            found.setdefault(common, []).append(row)
    return found


def newest(entries: Sequence[Entry], row: int, most: int, beside: float | None = None) -> tuple[int, ...]:
    """Places of the newest of `entries` at which `row` was computed, the newest first.

    Args:
        most: that are wanted.
        beside: wanted are noise levels that all differ, from this one, too: solvers with two stages a step visit a
            level twice. None takes any.
    """
    found: list[int] = []
    levels = {beside}
    for place in range(len(entries) - 1, -1, -1):
        if len(found) == most:
            break
        entry = entries[place]
        if entry.computed[row] and (beside is None or entry.u not in levels):
            found.append(place)
            levels.add(entry.u)
    return tuple(found)


def weighted(values: Sequence[torch.Tensor], weights: Weights) -> torch.Tensor:
    """sum_j weights[j] * values[j] in float32. Shapes: every value the same; the result likewise."""
    total = values[0].float() * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        if isinstance(weight, torch.Tensor):
            total.addcmul_(value.float(), weight)
        elif weight:
            total.add_(value, alpha=weight)
    return total


def by_row(weights: Sequence[Sequence[float]], like: torch.Tensor) -> Weights:
    """Weights of the same values in every row: one number each where all rows agree."""
    if all(some == weights[0] for some in weights):
        return weights[0]
    table = torch.tensor(weights, dtype=torch.float32).to(like.device, non_blocking=True)
    return table.T.reshape(len(weights[0]), len(weights), *[1] * (like.ndim - 1)).unbind()


def mixed_weights(nodes: Sequence[float], at: float, degree: float) -> list[float]:
    """Weights of an interpolation at `at` of a degree that may lie between two whole numbers: those of both, mixed.

    Args:
        nodes: the newest first; the oldest is used by the higher degree alone.
    """
    highest = min(math.ceil(degree), len(nodes) - 1)
    low = min(int(degree), highest)
    below, above = (lagrange_weights(list(nodes[: d + 1]), at) for d in (low, highest))
    share = min(degree, highest) - low
    below = [*below, *([0.0] * (highest - low))]
    return [
        *((1.0 - share) * b + share * a for b, a in zip(below, above, strict=True)),
        *([0.0] * (len(nodes) - 1 - highest)),
    ]


def carried(prediction: Prediction, node: Entry, u: float) -> torch.Tensor:
    """The clean picture at noise level `u` if the denoiser gave there what it gave at `node`.

    A forecast of the output is a weighted sum of outputs, and the clean picture that it gives is that of these. They
    answer the latents that were seen, which a replay may have corrected since: what that did to the picture comes with
    it.
    """
    sample, clean = prediction.kept(node.u, u)
    if node.held is None:
        return weighted([node.clean, node.seen], [clean, sample])
    return weighted([node.held, node.clean, node.seen], [1.0, clean - 1.0, sample])


def misses(
    prediction: Prediction, truth: Entry, nodes: Sequence[Entry], weights: Weights
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a forecast of the computed step `truth` from `nodes` misses, and how far off the latents were."""
    there = weighted([carried(prediction, node, truth.u) for node in nodes], weights)
    return truth.clean - there, truth.seen.float() - weighted([node.pair[0] for node in nodes], weights)


def row_sums(x: torch.Tensor) -> torch.Tensor:
    """The sum of each row. Shapes: (R, ...) -> (R, 1, ...)."""
    return x.sum(tuple(range(1, x.ndim)), keepdim=True)
