"""What one call of a transformer costs, counted on the meta device, and what sparse attention would make of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...errors import ConfigError
from .recording import Site, record_call

FEWEST_TOKENS = 1024
"""Self-attention over fewer tokens has too few blocks of 64 for a choice among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One call of a transformer for one sample. Multiplications and additions count one each."""

    parameters: int
    """Numbers in the transformer's state: weights, and tables of positions where they are saved with them."""
    tokens: int
    """Tokens that become the picture."""
    self_attention: tuple[Site, ...]
    """Attention of the picture's tokens (and of text tokens in one sequence with them) to themselves: what can be
    made sparse."""
    other_attention: tuple[Site, ...]
    """To text, or among text tokens."""
    other_flops: int
    """Everything that is no attention: projections, feed-forward, convolutions, linear attention."""

    @property
    def attention_flops(self) -> int:
        return sum(site.flops for site in self.self_attention)

    @property
    def other_attention_flops(self) -> int:
        return sum(site.flops for site in self.other_attention)

    @property
    def sequence(self) -> int:
        """Tokens of the longest self-attention; 0 where there is none."""
        return max((site.queries for site in self.self_attention), default=0)

    def index_bytes(self, density: float, blocks: tuple[int, int] = (128, 64)) -> int:
        """Memory of the block indices of one call: 4 bytes a kept block and a row, for every layer and head."""
        total = 0.0
        for site in self.self_attention:
            rows, columns = -(-site.queries // blocks[0]), -(-site.keys // blocks[1])
            total += site.count * site.heads * 4 * (rows * columns * density + rows + 1)
        return round(total)


def count_cost(transformer: nn.Module, inputs: Mapping[str, Any], tokens: int) -> Cost:
    """Count what `transformer(**inputs)` takes; with everything on the meta device nothing is computed or stored.

    Args:
        transformer: a diffusers transformer on the meta device.
        inputs: arguments of one call for one sample, on the meta device.
        tokens: tokens that become the picture; attention over at least as many, to itself, counts as self-attention.

    Raises: InputError where the transformer refuses the shapes.
    """
    recording = record_call(transformer, inputs)
    found: Counter[tuple[int, int, int, int]] = Counter()
    for _, site in recording.attention:
        found[site.heads, site.queries, site.keys, site.width] += site.count
    sites = [
        Site(heads=heads, queries=queries, keys=keys, width=width, count=number)
        for (heads, queries, keys, width), number in found.items()
    ]
    own = tuple(site for site in sites if site.is_own(tokens))
    return Cost(
        parameters=sum(weight.numel() for weight in transformer.state_dict().values()),
        tokens=tokens,
        self_attention=own,
        other_attention=tuple(site for site in sites if site not in own),
        other_flops=sum(recording.products.values()),
    )


def worthwhile(
    attention_share: float,
    sparsity: float,
    sparse_fraction_of_steps: float,
    kernel_ratio: float,
    *,
    search_cost: float = 0.0,
) -> float:
    """How many times faster a whole run becomes with block-sparse attention, predicted.

    Args:
        attention_share: of the dense run's time that is self-attention, 0..1.
        sparsity: share of the attention left out, 0..1.
        sparse_fraction_of_steps: share of the steps that run sparse, 0..1; the others are dense warm-up.
        kernel_ratio: speed of the sparse kernel on what it computes over that of the dense kernel (400 / 620 TFLOP/s).
        search_cost: time spent looking for blocks over the whole run, in the time the run's dense attention takes.

    Raises: ConfigError for a number out of its range.

    >>> round(worthwhile(0.87, 0.8, 0.8, 400 / 620), 2)
    1.92
    """
    for name, value in (
        ("attention_share", attention_share),
        ("sparsity", sparsity),
        ("sparse_fraction_of_steps", sparse_fraction_of_steps),
    ):
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name} is a share from 0 to 1, not {value}")
    if not kernel_ratio > 0.0 or not search_cost >= 0.0:
        raise ConfigError(f"kernel_ratio must be above 0 and search_cost at least 0, not {kernel_ratio}, {search_cost}")
    attention = 1.0 - sparse_fraction_of_steps * (1.0 - (1.0 - sparsity) / kernel_ratio) + search_cost
    remaining = 1.0 - attention_share + attention_share * attention
    return 1.0 / remaining if remaining > 0.0 else float("inf")


def break_even(
    sparse_fraction_of_steps: float,
    kernel_ratio: float,
    *,
    search_cost: float = 0.0,
    attention_share: float = 1.0,
    speedup: float = 1.0,
) -> float | None:
    """The sparsity from which a run is as much faster as `speedup`; None where not even leaving everything out is.

    Args: as those of `worthwhile`; with every step sparse and no search it is that of the kernel alone. As long as
    nothing is to be gained, how large a share attention has does not matter.

    >>> round(break_even(0.8, 400 / 620, attention_share=0.87, speedup=1.92), 2)
    0.8
    """
    gone = search_cost + (1.0 - 1.0 / speedup) / attention_share if attention_share > 0.0 else float("inf")
    if sparse_fraction_of_steps <= gone:
        return None
    return max(0.0, 1.0 - kernel_ratio * (1.0 - gone / sparse_fraction_of_steps))


def even_share(
    sparsity: float, sparse_fraction_of_steps: float, kernel_ratio: float, *, search_cost: float, speedup: float
) -> float | None:
    """The share of attention in the time from which a sparsity makes a run as much faster; None where none is enough.

    Args: as those of `worthwhile`.
    """
    saved = sparse_fraction_of_steps * (1.0 - (1.0 - sparsity) / kernel_ratio) - search_cost
    needed = (1.0 - 1.0 / speedup) / saved if saved > 0.0 else float("inf")
    return needed if needed < 1.0 else None
