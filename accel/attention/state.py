"""What is remembered between the calls of attention: by layer, guidance branch and row of the batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...kernels.attention import BlockIndex
from ..denoiser import Interception
from ..part import Current
from .layout import Layout

EFFICIENCY = {"cpu": 0.75, "cuda": 0.65}
"""Rate of the sparse kernels over that of dense attention, block for block: measured on a CPU
(benchmarks/attention_cpu.py); published kernels on an H100 give 0.65 to 0.85. Decides what is worth while."""

Hidden = tuple[int, ...]
"""Places of the keys that a mask hides from a row of the batch, rising."""


@dataclass(slots=True)
class Kept:
    """What a search gave for one range of noise levels."""

    index: BlockIndex | None
    """None where so little could be left out that the layer stays dense."""
    recall: float | None
    """Mean over the heads, where it was measured."""


@dataclass(slots=True)
class RowState:
    """What one layer knows for one row of the batch."""

    signature: tuple[Any, ...] = ()
    """What its attention looks like; another one starts anew."""
    due: int = 0
    """Searches of the schedule that are done."""
    searches: int = 0
    found: dict[int, Kept] = field(default_factory=dict)
    """By range of a schedule of densities; of one range where there is none."""
    used: Kept | None = None
    """What is in use of it."""
    index: BlockIndex | None = None
    lse: Tensor | None = None
    """Dense normaliser (1, H, N) of the first search, kept where later searches rank with it."""
    recall: float | None = None
    """Mean over the heads, measured at the search."""
    reference: Tensor | None = None
    """Some of the normaliser of the first sparse call after the search."""
    drifted: bool = False
    dense: bool = False
    """Searched and found not worth it: dense until the next search of the schedule."""

    def enter(self, range: int) -> None:
        """Use what was found for a range of noise levels."""
        kept = self.found.get(range)
        if kept is not None and kept is not self.used:
            self.used, self.index, self.recall, self.dense = kept, kept.index, kept.recall, kept.index is None
            self.reference = None


@dataclass(slots=True)
class LayerState:
    """What one layer knows in one branch of guidance."""

    rows: list[RowState]
    hopeless: bool = False
    """Attention is too small a share of the work."""
    joined: tuple[tuple[int, ...], BlockIndex] | None = None
    """The indices of several rows as one, with the identities of its parts."""

    def clear(self, rows: list[int]) -> None:
        """Forget what was found for some rows: they are searched anew."""
        self.joined = None
        for row in rows:
            self.rows[row].found.clear()

    def index_of(self, parts: list[BlockIndex]) -> BlockIndex:
        """One index over the rows of a call, joined once for each set of them."""
        if len(parts) == 1:
            return parts[0]
        key = tuple(id(part) for part in parts)
        if self.joined is None or self.joined[0] != key:
            self.joined = (key, BlockIndex.cat(parts))
        return self.joined[1]


@dataclass(slots=True)
class Layer:
    """One attention module."""

    name: str
    site: Interception
    parameters: int
    """Weights of its block, for what the rest of the block costs."""
    text: str
    """Where text lies beside the picture: "start" or "end"."""
    place: int = 0
    """Among the layers of its transformer that can be sparse."""
    unreachable: bool = False
    """Found not to end in scaled_dot_product_attention."""

    def share(self, q: Tensor) -> float:
        """Share of the block's floating-point operations that its self-attention takes.

        Shapes: q (B, H, N, D). Attention takes 4 N N H D, the weights of the block 2 N each.
        """
        _, heads, tokens, width = q.shape
        attention = 4.0 * tokens * tokens * heads * width
        return attention / (attention + 2.0 * self.parameters * tokens)

    def worth(self, q: Tensor, density: float, least: float) -> bool:
        """Whether keeping this share of the blocks gains the `least` share of the block's work that is asked for."""
        return least == 0.0 or self.share(q) * (1.0 - density / EFFICIENCY.get(q.device.type, 0.65)) >= least


@dataclass(slots=True)
class Call:
    """One call of one layer, with all that answers it."""

    current: Current
    layer: Layer
    state: LayerState
    rows: list[int]
    layout: Layout
    lengths: Tensor | None
    scale: float | None
