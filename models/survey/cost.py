"""What a transformer costs, from a list of its parts: parameters, FLOPs, bytes, and the least time on a machine.

A part is a matrix, an attention or a table of numbers. An architecture is a tuple of parts, and a technique a function
from parts to parts, so that what a technique saves is computed and not quoted. FLOPs are those of products of matrices
(2 a multiplication and addition), as `torch.utils.flop_counter` counts them.

Source: Chitty-Venkata, Mittal, Emani, Vishwanath, Somani, 2023, arXiv:2307.07982; the roofline: Williams, Waterman,
Patterson, 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import ConfigError

ALL_TOKENS = ("tokens",)
ONCE = ("once",)
"""The stream of what is computed one time a sequence: a pooler, a class, a time step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """A matrix in each layer that every vector of some streams is multiplied with."""

    name: str
    """What it makes: "query", "up"."""
    inputs: int
    """Its columns."""
    outputs: int
    """Its rows."""
    bias: bool = True
    """Whether one number an output is added."""
    layers: int = 1
    """Layers that multiply with such a matrix."""
    distinct: int | None = None
    """Layers with one of their own, where some share theirs; all where None."""
    experts: int = 1
    """Copies in a layer to choose from."""
    chosen: int = 1
    """Copies that a vector is multiplied with."""
    streams: tuple[str, ...] = ALL_TOKENS
    """Whose vectors."""
    bits: float = 16
    """A weight, with its share of scales and indices."""
    stored: float = 1.0
    """Share of its weights that is kept."""
    computed: float = 1.0
    """Share of its products that is made."""

    @property
    def weights(self) -> float:
        """Numbers that are kept."""
        kept = self.inputs * self.outputs * self.stored + self.outputs * self.bias
        return kept * (self.layers if self.distinct is None else self.distinct) * self.experts

    def flops(self, vectors: int) -> float:
        """Of multiplying this many vectors."""
        return 2 * self.inputs * self.outputs * self.layers * self.chosen * self.computed * vectors

    def touched(self, vectors: int) -> float:
        """Share of the experts that this many vectors need, each choosing evenly at random."""
        return 1 - (1 - self.chosen / self.experts) ** vectors if vectors else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """The part of attention without weights: scores, and sums of values."""

    name: str = "attention"
    """What it is called in a list."""
    layers: int
    """Layers that have it."""
    heads: int
    """Of queries."""
    key_heads: int | None = None
    """Of keys and values; as many as of queries where None."""
    head_width: int
    """Numbers a head."""
    causal: bool = False
    """Whether a token sees only itself and those before it. Only then is there a cache."""
    window: int | None = None
    """Keys a token sees at most."""
    linear: bool = False
    """Whether a state of head width x head width stands in for the keys and values."""
    density: float = 1.0
    """Share of the pairs that is computed."""
    streams: tuple[str, ...] = ALL_TOKENS
    """Whose vectors see each other."""
    bits: float = 16
    """A number of the cache."""

    def pairs(self, tokens: int, cached: int) -> int:
        """Queries and keys that meet when `tokens` come after `cached` others."""
        if not self.causal:
            return tokens * (tokens + cached)
        seen = self.window or tokens + cached
        growing = min(tokens, max(0, seen - cached))  # these see all before them, the others a full window
        return growing * cached + growing * (growing + 1) // 2 + (tokens - growing) * seen

    def flops(self, tokens: int, cached: int) -> float:
        """Of scores and sums; a linear attention writes a product into its state and reads one from it."""
        met = tokens * self.head_width if self.linear else self.pairs(tokens, cached) * self.density
        return 4 * self.layers * self.heads * self.head_width * met

    def cache_bytes(self, tokens: int) -> float:
        """What is remembered of this many tokens, for one sequence."""
        if self.linear:
            return self.layers * self.heads * self.head_width**2 * self.bits / 8
        kept = min(tokens, self.window or tokens) if self.causal else 0
        return 2 * self.layers * (self.key_heads or self.heads) * self.head_width * kept * self.bits / 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Numbers that nothing is multiplied with as a matrix: embeddings, norms, positions."""

    name: str
    """What they are."""
    numbers: int
    """How many there are in a layer."""
    layers: int = 1
    """Layers that have them."""
    bits: float = 16
    """A number."""
    looked_up: bool = False
    """Whether a token reads one row only, as of an embedding."""


Part = Matrix | Attention | Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of one pass."""

    parameters: int
    """Numbers that are kept."""
    flops: float
    """For all sequences of the batch."""
    weight_bytes: float
    """All weights at rest."""
    cache_bytes: float
    """Keys, values and states after the pass, for all sequences."""
    moved_bytes: float
    """Weights that the pass reads, and the cache once. Activations are not counted: kernels may keep them on chip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """The two numbers of a roofline, as its maker states them: no program reaches both."""

    name: str
    """How it is sold."""
    flops_per_second: float
    """Dense products in bfloat16."""
    bytes_per_second: float
    """From its main memory."""


MACHINES = {
    machine.name: machine
    for machine in (
        Machine(name="A100 SXM 80GB", flops_per_second=312e12, bytes_per_second=2.039e12),
        Machine(name="H100 SXM", flops_per_second=989e12, bytes_per_second=3.35e12),
        Machine(name="H200 SXM", flops_per_second=989e12, bytes_per_second=4.8e12),
    )
}


def cost(parts: tuple[Part, ...], tokens: Mapping[str, int] | int, *, cached: int = 0, batch: int = 1) -> Cost:
    """What a pass of some tokens costs.

    Args:
        parts: the architecture.
        tokens: vectors of every stream, a sequence; a number is that of the stream "tokens". "once" is 1 if not given.
        cached: tokens read before; with 1 token after them this is a step of decoding.
        batch: sequences at a time.

    Raises: ConfigError: a stream of the architecture has no number of tokens, or a number is not positive.
    """
    counts = {"once": 1, **({"tokens": tokens} if isinstance(tokens, int) else tokens)}
    if batch < 1 or cached < 0 or min(counts.values()) < 0:
        raise ConfigError("a pass has at least one sequence, and no fewer than 0 tokens, new and cached")
    streams = {stream for part in parts if not isinstance(part, Table) for stream in part.streams}
    if streams - set(counts):
        missing = ", ".join(sorted(streams - set(counts)))
        raise ConfigError(f"this architecture has the streams {', '.join(sorted(streams))}; say how long {missing} is")
    parameters = flops = weight_bytes = cache_bytes = moved_bytes = 0.0
    for part in parts:
        if isinstance(part, Table):
            parameters += part.numbers * part.layers
            weight_bytes += part.numbers * part.layers * part.bits / 8
            moved_bytes += 0 if part.looked_up else part.numbers * part.layers * part.bits / 8
            continue
        length = sum(counts[stream] for stream in part.streams)
        if isinstance(part, Matrix):
            parameters += part.weights
            flops += part.flops(length * batch)
            weight_bytes += part.weights * part.bits / 8
            moved_bytes += part.weights * part.bits / 8 * part.touched(length * batch)
        else:
            flops += part.flops(length, cached) * batch
            cache_bytes += part.cache_bytes(cached + length) * batch
    return Cost(
        parameters=round(parameters),
        flops=flops,
        weight_bytes=weight_bytes,
        cache_bytes=cache_bytes,
        moved_bytes=moved_bytes + cache_bytes,
    )


def least_seconds(cost: Cost, machine: Machine) -> tuple[float, str]:
    """The roofline: (seconds that no program can go below on this machine, "arithmetic" or "memory" that sets them)."""
    arithmetic, memory = cost.flops / machine.flops_per_second, cost.moved_bytes / machine.bytes_per_second
    return max(arithmetic, memory), "arithmetic" if arithmetic >= memory else "memory"
