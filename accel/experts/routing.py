"""Watching routers at work: what was chosen how often, and the loss that keeps them from always choosing the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MeasurementError
from .block_mixture import Choice, MixedGroup, find_groups
from .feed_forward import ExpertFeedForward, find_experts


@dataclass(slots=True)
class Routing:
    """What the routers of a transformer did while they were watched.

    A router is named by the path of its layer, or "blocks 4-7" for a group of blocks. Of several calls, means stand.
    """

    shares: dict[str, list[Tensor]] = field(default_factory=dict)
    """Router -> for each call, the share of all choices that each expert or block got (E), summing to 1."""
    probabilities: dict[str, list[Tensor]] = field(default_factory=dict)
    """Router -> for each call, the mean probability of each (E), with its gradient."""

    def balance_loss(self, among: Collection[str] | None = None) -> Tensor:
        """E times the sum of share x mean probability, averaged over routers and calls; 1 where all are chosen alike.

        Source: Fedus et al. 2022 (arXiv:2101.03961), as in Dense2MoE, where its weight is 1e-2. Several denoiser calls
        under one watch count alike.

        Args:
            among: routers that count; None counts all.

        Raises: MeasurementError where no router was asked.
        """
        parts = [
            len(share) * (share * probability).sum()
            for name in self.shares
            if among is None or name in among
            for share, probability in zip(self.shares[name], self.probabilities[name], strict=True)
        ]
        if not parts:
            raise MeasurementError("no router was asked while they were watched; call the transformer inside `watch`")
        return torch.stack(parts).mean()

    def load(self) -> dict[str, list[float]]:
        """How often each expert or block of a router was chosen, relative to all being chosen alike (1.0)."""
        return {name: (torch.stack(shares).mean(0) * len(shares[0])).tolist() for name, shares in self.shares.items()}

    def note(self, name: str, probabilities: Tensor, counts: Tensor) -> None:
        """One decision: probabilities (rows, E) and how often each was chosen (E)."""
        self.shares.setdefault(name, []).append(counts.detach().float() / counts.sum().clamp_min(1))
        self.probabilities.setdefault(name, []).append((probabilities / probabilities.sum(-1, keepdim=True)).mean(0))


@contextmanager
def watch(transformer: nn.Module) -> Iterator[Routing]:
    """Watch every router of `transformer`, of experts and of blocks, until the end of the block.

    >>> with watch(model) as routing:  # doctest: +SKIP
    ...     output = model(**call)
    >>> loss = distance(output, target) + 1e-2 * routing.balance_loss()  # doctest: +SKIP
    """
    routing = Routing()
    layers, groups = find_experts(transformer), find_groups(transformer)
    names: dict[int, str] = {id(layer): path for path, layer in layers.items()}

    def expert(layer: ExpertFeedForward, probabilities_TE: Tensor, index_TK: Tensor) -> None:
        counts = torch.bincount(index_TK.flatten(), minlength=probabilities_TE.shape[1])
        routing.note(names[id(layer)], probabilities_TE, counts)

    def block(group: MixedGroup, choice: Choice) -> None:
        routing.note(group.name, choice.probabilities_BM, choice.runs_BM.sum(0))

    watched: list[Any] = [*layers.values(), *groups]
    before = [thing.listener for thing in watched]
    for layer in layers.values():
        layer.listener = expert
    for group in groups:
        group.listener = block
    try:
        yield routing
    finally:
        for thing, listener in zip(watched, before, strict=True):
            thing.listener = listener
