"""What is known and decided in one call of a denoiser, and of one guidance branch between its calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ..denoiser import Rows
from ..inlets import Made
from ..part import Current
from ..policy import Policy
from ..ranks import mean_over
from ..streams import Kind
from .history import PROBE_TOKENS, History
from .partial import Partial
from .rounding import noise_of, residual_additions

Given = tuple[Any, ...]
"""What a transformer is given, without values that are others at every step; see `given_of`."""


@dataclass(slots=True)
class Branch:
    """State of one guidance branch of one denoiser: a history for each row of the batch."""

    signature: tuple[Any, ...]
    streams: dict[str, list[History]]
    """For each stream that leaves the model, the picture's first."""
    given: Given | None = None
    """What the transformer was given in the newest call that was not idle."""
    kinds: dict[str, Kind] = field(default_factory=dict)
    """What its first block was given then, of every stream."""
    made: Made = field(default_factory=dict)
    """What the modules gave then that work for the blocks alone."""

    @property
    def rows(self) -> list[History]:
        """The histories of the stream that becomes the picture; they decide when a step has to be computed."""
        return next(iter(self.streams.values()))


@dataclass(slots=True)
class Active:
    """What is decided in the denoiser call that is under way."""

    current: Current
    tie: int
    """Rows of one sample: 2 where guidance is batched in one tensor, else 1."""
    branch: Branch | None = None
    policies: list[Policy] = field(default_factory=list)
    """That of every sample."""
    at: list[float] = field(default_factory=list)
    """Where the call lies for every sample, in its policy's coordinate."""
    computed: list[bool] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)
    error: list[float | None] = field(default_factory=list)
    order: list[int | None] = field(default_factory=list)
    weights: dict[int, list[float]] = field(default_factory=dict)
    apart: dict[str, list[float | None]] = field(default_factory=dict)
    """The error of each stream for every sample, where there are several."""
    first: dict[str, torch.Tensor] = field(default_factory=dict)
    """The first block's output."""
    firsts: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)
    """Copies of it by stream and row, for rows that are computed and whose gates ask for it. Made before the next block
    runs: compiled into a CUDA graph, that one writes where this one wrote."""
    sizes: dict[str, list[torch.Tensor]] | None = None
    """Mean absolute values of a stream's tokens behind each block, one a row, where this call is to tell what rounding
    adds."""
    given: Given | None = None
    """What the transformer is given; None where that does not tell what its first block will be."""
    reached: bool = False
    """Whether the first block was called."""
    whole: bool = False
    """Whether every sample is computed, known when the first block has run."""
    begin: Any = None
    """When the second block was reached."""
    probed: int = 0
    cutter: Rows | None = None
    partial: Partial = field(default_factory=Partial)
    cutters: dict[tuple[int, ...], Rows] = field(default_factory=dict)
    """Of blocks that partial steps run, by their rows."""

    def rows_of(self, sample: int) -> list[int]:
        return [sample + part * len(self.computed) for part in range(self.tie)]

    @property
    def histories(self) -> list[History]:
        """Those of the call's branch; none before it is known."""
        return self.branch.rows if self.branch is not None else []

    @property
    def streams(self) -> dict[str, list[History]]:
        """The histories of every stream; none before the branch is known."""
        return self.branch.streams if self.branch is not None else {}

    def used(self) -> dict[int, tuple[list[int], list[float]]]:
        """For each forecast row: the steps its forecast was made from and their weights."""
        histories = self.histories
        return {
            row: ([a.step for a in histories[row].anchors[: len(self.weights[row])]], self.weights[row])
            for s, done in enumerate(self.computed)
            if not done
            for row in self.rows_of(s)
        }

    @property
    def rows(self) -> list[int]:
        """Rows that are computed."""
        return sorted(row for s, done in enumerate(self.computed) if done for row in self.rows_of(s))

    def note_size(self, name: str, x: torch.Tensor) -> None:
        """Of a stream's tokens behind one block, in the call that is to tell. Shapes: x (B, N, D)."""
        if self.sizes is not None:
            some = x[:, :: max(1, x.shape[1] // PROBE_TOKENS)]
            self.sizes.setdefault(name, []).append(some.abs().flatten(1).mean(1, dtype=torch.float32))

    def told_sizes(self) -> list[torch.Tensor]:
        """One tensor a stream with what was noted, not read yet. Shapes: (blocks, B)."""
        ranks = self.current.denoiser.ranks
        return [mean_over(torch.stack(some), ranks) for some in (self.sizes or {}).values()]

    def learn_noise(self, told: list[float]) -> None:
        """Take to heart how much rounding adds to each row: the numbers of `told_sizes`, one after the other."""
        for name, noted in (self.sizes or {}).items():
            histories = self.streams.get(name, [])
            count, rows = len(noted), len(histories)
            own, told = told[: count * rows], told[count * rows :]
            dtype = self.first[name].dtype
            additions = [residual_additions(site.module) for site in self.current.denoiser.blocks[:count]]
            for row, history in enumerate(histories):
                sizes = own[row::rows]
                history.first_noise = noise_of(dtype, sizes[:1], additions[:1])
                history.noise = noise_of(dtype, sizes, additions)

    def note_endings(self) -> None:
        """See with which block the partial steps of each row end, where it runs that block in this call."""
        samples = len(self.computed)
        for row in range(len(self.histories)):
            depth = self.policies[row % samples].depth
            if depth and (self.computed[row % samples] or row % samples in self.partial.depth):
                self.partial.ending.setdefault(depth - 1, []).append(row)

    def cutter_at(self, index: int) -> Rows | None:
        """What runs block `index` for the rows that need it; None where none does."""
        running = self.partial.samples(index)
        if not running:
            return self.cutter
        rows = tuple(sorted([*self.rows, *(row for s in running for row in self.rows_of(s))]))
        if rows not in self.cutters:
            device = next(iter(self.first.values())).device
            self.cutters[rows] = Rows(list(rows), len(self.histories), device)
        return self.cutters[rows]
