"""What is done to a dense transformer, as plain data that travels in the config of the converted one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError
from ...registry import suggestion
from ..ranges import number, one_of, whole
from .layout import Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """Feed-forward layers become one shared and several routed experts.

    Source: Dense2MoE (Zheng et al., ICCV 2025, arXiv:2510.09094).

    Differs from the paper: it does not say how gates are computed; `scores` and `scaling` leave the choice.
    """

    layout: str = "1S12E2A"
    """Shared experts (quarters of the hidden units), routed experts, and routed experts a token goes through; with
    noise levels behind them ("1S12E2A4N"), those that a step runs, without a router."""
    scores: str = "softmax"
    """"softmax": experts compete for a token. "sigmoid": each is scored by itself."""
    scaling: str = "none"
    """Of the chosen experts' gates. "none": as scored, which bears another number of active experts best.
    "normalize": they sum to 1. "experts": times the number of experts, so that a router that knows nothing yet
    lets the chosen experts add what they added in the dense layer. "one": always 1, so that the chosen experts add
    exactly what they added in the dense layer; the router is trained straight through."""

    def __post_init__(self) -> None:
        Layout.parse(self.layout)
        one_of("scores", self.scores, ("softmax", "sigmoid"))
        one_of("scaling", self.scaling, ("none", "normalize", "experts", "one"))


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerExperts:
    """How many experts of one layer each noise level runs."""

    path: str
    """Of the layer: "transformer_blocks.0.ff"."""
    active: tuple[int, ...]
    """For every level."""
    tokens: float
    """That the layer sees of one sample, by which what it costs is known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "active", tuple(self.active))
        for count in self.active:
            whole("active", count, 0)
        number("tokens", self.tokens, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockGroup:
    """Consecutive blocks of which only some run, chosen for each sample at each call."""

    first: int
    """Place of the first block of the group, counted over all stacks in execution order, from 0."""
    size: int
    """m: blocks in the group."""
    active: int
    """kappa: blocks that run, 0 to `size`."""

    def __post_init__(self) -> None:
        whole("first", self.first, 1)
        whole("size", self.size, 2)
        whole("active", self.active, 0, self.size)

    @staticmethod
    def parse(text: str) -> BlockGroup:
        """The group that "4-7:2" writes down: of blocks 4 to 7, 2 run. Raises: ConfigError."""
        blocks, colon, active = text.partition(":")
        first, dash, last = blocks.partition("-")
        if not (colon and dash and all(part.strip().isdecimal() for part in (first, last, active))):
            raise ConfigError(f"'{text}' is no group of blocks; write 4-7:2 for 2 of the blocks 4, 5, 6 and 7")
        return BlockGroup(first=int(first), size=int(last) - int(first) + 1, active=int(active))


@dataclass(frozen=True, kw_only=True, slots=True)
class Modulation:
    """The matrices that turn the conditioning into shifts, scales and gates (adaLN) get smaller."""

    kind: str = "low_rank"
    """"low_rank": each becomes a product of two thin ones. "shared": one matrix serves all blocks of a kind."""
    rank: int = 48
    """Of the product; 48 brings FLUX.1-dev to the paper's 5.15 B. "shared" does not use it."""

    def __post_init__(self) -> None:
        one_of("kind", self.kind, ("low_rank", "shared"))
        whole("rank", self.rank, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Integers:
    """Linear layers in the blocks hold 8-bit codes: half of bfloat16's memory, a quarter of float32's.

    Source: scales for blocks as in BCT (Dong et al. 2023, arXiv:2304.01483).

    Differs from the paper: scales are not powers of two, and norms and activations stay in floating point.
    """

    block: int = 64
    """Weights along a row that share a scale of 2 bytes. Fewer are nearer to the weights and take more memory; a row
    that as many do not divide is cut into the largest blocks that do."""
    inputs: int | None = None
    """Bits, 2 to 8, of what the weights are multiplied with, rounded in blocks at each call, so that all products are
    of whole numbers. None rounds weights only, which is nearer and, without hardware for whole numbers, faster."""

    def __post_init__(self) -> None:
        whole("block", self.block, 1)
        if self.inputs is not None:
            whole("inputs", self.inputs, 2, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """Everything that is done to one transformer; what is None or empty is left dense."""

    experts: Experts | None = None
    borders: tuple[float, ...] = ()
    """Timesteps that part the noise levels of a layout, ascending, as the transformer is told them; measured by
    `level_importance`. Empty: every step is at the first level."""
    spread: tuple[LayerExperts, ...] = ()
    """Experts of every layer that each noise level runs, measured by `spread_experts`: as many on average as the layout
    says, more where they matter more. Empty: the layout's number in all."""
    width: float | None = None
    """Share of every feed-forward layer's hidden units that is kept, the most important; 0..1. Instead of experts: what
    they are compared with."""
    dropped: tuple[int, ...] = ()
    """Places of blocks that are taken out for good, counted over all stacks from 0. Instead of groups, likewise."""
    left_out: tuple[tuple[int, ...], ...] = ()
    """For every noise level places of blocks that it does without, measured by `choose_blocks`. Instead of groups or
    `dropped`."""
    stand_ins: bool = False
    """What stands in for consecutive blocks of `left_out` is one affine function of their tokens at each level, which
    `start_blocks` fits: nearer to the dense model before training, and further off after it."""
    groups: tuple[BlockGroup, ...] = ()
    """Of blocks, for a mixture of blocks; in order, without overlap."""
    text_weight: float = 0.5
    """Alpha: the part of a group's scores that pooled image and text have; the rest is the global embedding's. 0..1."""
    modulation: Modulation | None = None
    integers: Integers | None = None
    """Last, and not beside experts of tokens, whose packed matrices hold no codes."""

    def __post_init__(self) -> None:
        number("text_weight", self.text_weight, 0.0, 1.0)
        if (
            self.experts is None
            and self.width is None
            and not (self.groups or self.dropped or self.left_out)
            and self.modulation is None
            and self.integers is None
        ):
            raise ConfigError(
                "nothing to convert: give experts, a width, blocks (groups, dropped or left_out), a modulation or "
                "integers"
            )
        layout = None if self.experts is None else Layout.parse(self.experts.layout)
        levels = self.levels
        if self.left_out and layout is not None and layout.levels not in (0, levels):
            raise ConfigError(
                f"blocks are left out at {levels} noise levels, and {layout} has other ones; give as many"
            )
        if list(self.borders) != sorted(set(self.borders)) or len(self.borders) not in (0, max(0, levels - 1)):
            raise ConfigError(f"{levels} noise levels have {max(0, levels - 1)} borders, ascending, not {self.borders}")
        if self.integers is not None and layout is not None and (not layout.levels or self.integers.inputs):
            raise ConfigError("experts of tokens hold no 8-bit codes; give experts or integers, not both")
        experts = 0 if layout is None else layout.experts
        for layer in self.spread:
            if len(layer.active) != levels or max(layer.active) > experts:
                raise ConfigError(
                    f"{layer.path} has {levels} noise levels that run 0 to {experts} experts each, not {layer.active}"
                )
        if self.width is not None:
            number("width", self.width, 0.0, 1.0)
            if self.experts is not None:
                raise ConfigError("a feed-forward layer is either split into experts or cut to a width, not both")
        for name, places in (("dropped", self.dropped), *(("left_out", level) for level in self.left_out)):
            for place in places:
                whole(name, place, 1)
            if list(places) != sorted(set(places)):
                raise ConfigError(f"{name} blocks are named once each and in order, not as {places}")
        if (bool(self.groups), bool(self.dropped), bool(self.left_out)).count(True) > 1:
            raise ConfigError(
                "blocks are either chosen among at each call (groups), left out by noise level (left_out) or dropped "
                "for good, not several of it"
            )
        if self.stand_ins and not self.left_out:
            raise ConfigError("nothing is there to stand in for: give blocks that noise levels leave out (left_out)")
        for before, after in zip(self.groups, self.groups[1:], strict=False):
            if after.first < before.first + before.size:
                raise ConfigError(
                    f"the groups of blocks {before.first}-{before.first + before.size - 1} and {after.first}-"
                    f"{after.first + after.size - 1} overlap or are out of order"
                )

    @property
    def levels(self) -> int:
        """Noise levels that choose experts or blocks; 0 where nothing goes by them."""
        return len(self.left_out) or self.expert_levels

    @property
    def expert_levels(self) -> int:
        """Noise levels that choose experts; 0 where tokens do, or there are none."""
        return 0 if self.experts is None else Layout.parse(self.experts.layout).levels

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads again."""
        told = dataclasses.asdict(self).items()
        given = {key: value for key, value in told if value is not False and value not in (None, ())}
        lists = {
            key: list(given[key]) for key in ("groups", "dropped", "left_out", "borders", "spread") if key in given
        }
        return {"version": 1, **given, **lists}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Conversion:
        """The conversion that `data` describes. Raises: ConfigError for an unknown version or setting."""
        held = dict(data)
        version = held.pop("version", None)
        if version != 1:
            raise ConfigError(f"this conversion has version {version}; this outpace reads version 1")
        parts: dict[str, Any] = {"experts": Experts, "modulation": Modulation, "integers": Integers}
        several: dict[str, Any] = {"groups": BlockGroup, "spread": LayerExperts}
        for key, value in held.items():
            if key in parts:
                held[key] = _filled(parts[key], value)
            elif key in several:
                held[key] = tuple(_filled(several[key], one) for one in value)
            elif key in ("dropped", "borders"):
                held[key] = tuple(value)
            elif key == "left_out":
                held[key] = tuple(tuple(level) for level in value)
        return _filled(Conversion, held)


def _filled(cls: type, values: dict[str, Any]) -> Any:
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            raise ConfigError(f"a conversion's {cls.__name__} has no setting '{name}'{suggestion(name, known)}")
    return cls(**values)
