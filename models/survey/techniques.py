"""Techniques as functions from an architecture's parts to its parts, with where to find each in outpace.

Source: the axes are those of arXiv:2307.07982.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ...errors import ConfigError
from ...registry import Registry
from .cost import Attention, Matrix, Part

Parts = tuple[Part, ...]

AXES = (
    "distillation",
    "pruning",
    "quantisation",
    "architecture search",
    "lightweight design",
    "hardware",
)
TRAINING = ("none", "calibration", "tuning", "from scratch")
FEED_FORWARD = ("gate", "up", "down")


@dataclass(frozen=True, kw_only=True, slots=True)
class Technique:
    """A technique's card."""

    axis: str
    """Of the survey's taxonomy: one of `AXES`."""
    training: str
    """What a trained model needs to take it on: one of `TRAINING`."""
    change: Callable[[Parts], Parts]
    """What it makes of an architecture, with the settings that `summary` names."""
    summary: str
    """What it does, with its settings."""
    source: str
    """Authors, year, arXiv number."""
    where: str = ""
    """What does it in outpace; empty where nothing does."""

    def __post_init__(self) -> None:
        if self.axis not in AXES or self.training not in TRAINING:
            raise ConfigError(f"a technique's axis is one of {', '.join(AXES)}, its training of {', '.join(TRAINING)}")


def matrices(parts: Parts, names: tuple[str, ...] = (), **changes: float) -> Parts:
    """Change every matrix of the layers, or those of these names; matrices outside of layers stay."""
    return tuple(
        replace(part, **changes)
        if isinstance(part, Matrix) and part.layers > 1 and (not names or part.name in names)
        else part
        for part in parts
    )


def blockwise(parts: Parts, *, bits: int, block: int) -> Parts:
    """Codes of some bits, and a scale of 16 bits a block."""
    return matrices(parts, bits=bits + 16 / block)


def fewer_layers(parts: Parts, *, kept: float) -> Parts:
    """Only a share of the layers."""
    return tuple(replace(part, layers=round(part.layers * kept)) if part.layers > 1 else part for part in parts)


def one_for_all_layers(parts: Parts) -> Parts:
    """Every layer multiplies with the same matrices; norms stay their own."""
    return tuple(replace(part, distinct=1) if isinstance(part, Matrix) and part.layers > 1 else part for part in parts)


def grouped_keys(parts: Parts, *, queries: int) -> Parts:
    """One head of keys and values for several of queries."""
    shared = tuple(
        replace(part, key_heads=max(1, part.heads // queries)) if isinstance(part, Attention) else part
        for part in parts
    )
    heads = {part.heads * part.head_width: part for part in shared if isinstance(part, Attention)}
    return tuple(
        replace(part, outputs=(heads[part.inputs].key_heads or 0) * heads[part.inputs].head_width)
        if isinstance(part, Matrix) and part.name in ("key", "value") and part.inputs in heads
        else part
        for part in shared
    )


def attention(parts: Parts, **changes: float | bool) -> Parts:
    """Change every attention."""
    return tuple(replace(part, **changes) if isinstance(part, Attention) else part for part in parts)


def windows(parts: Parts, *, keys: int) -> Parts:
    """Every causal attention sees only so many keys."""
    return tuple(replace(part, window=keys) if isinstance(part, Attention) and part.causal else part for part in parts)


def hybrid(parts: Parts, *, linear: int, full: int) -> Parts:
    """In some of the layers, a state stands in for the keys and values."""
    changed: list[Part] = []
    for part in parts:
        if isinstance(part, Attention):
            kept = round(part.layers * full / (linear + full))
            changed.append(replace(part, layers=part.layers - kept, linear=True, name="linear attention"))
            changed.append(replace(part, layers=kept))
        else:
            changed.append(part)
    return tuple(changed)


def expert_feed_forward(parts: Parts, *, experts: int, chosen: int) -> Parts:
    """Several feed-forward networks to choose from in place of each, as wide as it."""
    changed = matrices(parts, FEED_FORWARD, experts=experts, chosen=chosen)
    ups = [part for part in changed if isinstance(part, Matrix) and part.name == "up" and part.layers > 1]
    routers = (
        Matrix(name="router", inputs=up.inputs, outputs=experts, bias=False, layers=up.layers, streams=up.streams)
        for up in ups
    )
    return *changed, *routers


TECHNIQUES: Registry[Technique] = Registry("technique")
for _name, _technique in {
    "distilled-to-half": Technique(
        axis="distillation",
        training="from scratch",
        change=partial(fewer_layers, kept=0.5),
        summary="a student with half the layers, taught by the whole model",
        source="Sanh et al., 2019, arXiv:1910.01108",
    ),
    "fused-layers": Technique(
        axis="pruning",
        training="tuning",
        change=partial(fewer_layers, kept=0.75),
        summary="a quarter of the layers left out, their knowledge folded into neighbours",
        source="FuseGPT, 2024, arXiv:2411.14507",
    ),
    "pruned-2:4": Technique(
        axis="pruning",
        training="tuning",
        change=partial(matrices, stored=0.5, computed=0.5, bits=18),
        summary="two of four neighbouring weights kept, each with an index of 2 bits; products of half the size",
        source="Mishra et al., 2021, arXiv:2104.08378",
    ),
    "int8": Technique(
        axis="quantisation",
        training="calibration",
        change=partial(blockwise, bits=8, block=64),
        summary="weights of 8 bits with a scale for 64",
        source="BCT, 2023, arXiv:2304.01483",
        where="outpace.kernels.quantised",
    ),
    "int4": Technique(
        axis="quantisation",
        training="calibration",
        change=partial(blockwise, bits=4, block=64),
        summary="weights of 4 bits with a scale for 64",
        source="BCT, 2023, arXiv:2304.01483",
        where="outpace.kernels.quantised",
    ),
    "int8-cache": Technique(
        axis="quantisation",
        training="calibration",
        change=partial(attention, bits=8),
        summary="keys and values of 8 bits",
        source="Hooper et al., 2024, arXiv:2401.18079",
    ),
    "shared-layers": Technique(
        axis="lightweight design",
        training="from scratch",
        change=one_for_all_layers,
        summary="the same matrices in every layer",
        source="Lan et al., 2019, arXiv:1909.11942; Xue et al., 2021, arXiv:2107.11817",
        where="outpace.models.widenet",
    ),
    "experts": Technique(
        axis="lightweight design",
        training="from scratch",
        change=partial(expert_feed_forward, experts=8, chosen=2),
        summary="8 feed-forward networks in place of each, 2 of them a token",
        source="Jiang et al., 2024, arXiv:2401.04088; Xue et al., 2021, arXiv:2107.11817",
        where="outpace.kernels.moe",
    ),
    "sparse-feed-forward": Technique(
        axis="lightweight design",
        training="from scratch",
        change=partial(matrices, names=FEED_FORWARD, computed=0.08),
        summary="8 % of the hidden units computed for a token; the cost of choosing them is not counted",
        source="You et al., 2025, arXiv:2506.06644",
        where="outpace.models.spark",
    ),
    "grouped-keys": Technique(
        axis="lightweight design",
        training="tuning",
        change=partial(grouped_keys, queries=8),
        summary="one head of keys and values for 8 of queries",
        source="Ainslie et al., 2023, arXiv:2305.13245",
        where="outpace.models.layers.attention",
    ),
    "window": Technique(
        axis="lightweight design",
        training="tuning",
        change=partial(windows, keys=1024),
        summary="the last 1024 keys only, where attention is causal",
        source="Beltagy et al., 2020, arXiv:2004.05150",
        where="outpace.models.layers.attention",
    ),
    "hybrid-3:1": Technique(
        axis="lightweight design",
        training="from scratch",
        change=partial(hybrid, linear=3, full=1),
        summary="three layers of linear attention to one of softmax attention",
        source="Wang et al., 2025, arXiv:2507.06457",
        where="outpace.models.hybrid",
    ),
    "linear-attention": Technique(
        axis="lightweight design",
        training="from scratch",
        change=partial(attention, linear=True),
        summary="linear attention in every layer",
        source="Yang et al., 2023, arXiv:2312.06635",
        where="outpace.models.gla",
    ),
    "sparse-attention": Technique(
        axis="lightweight design",
        training="none",
        change=partial(attention, density=0.3),
        summary="30 % of the pairs of queries and keys computed",
        source="Xia et al., 2025, arXiv:2502.21079",
        where="outpace.accel.methods",
    ),
}.items():
    TECHNIQUES.add(_name, _technique)
