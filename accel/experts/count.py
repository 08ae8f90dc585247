"""What a conversion saves, counted on the meta device: parameters in all, those one token uses, FLOPs of a call."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from .block_mixture import find_groups
from .by_noise import NoiseFeedForward, find_noise_experts
from .convert import convert
from .feed_forward import find_experts
from .integers import find_integers, weight_bytes
from .modulation import find_modulations
from .scheduled import find_scheduled
from .settings import Conversion
from .sites import find_sites


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """A transformer before and after a conversion. FLOPs are of one call for one sample, two for a multiplication;
    where noise levels run unequal parts, of the mean call."""

    model: str
    transformer: str
    height: int
    width: int
    frames: int | None
    """None for pictures."""
    layers: int
    """Feed-forward layers in the blocks."""
    feed_forward: int
    """Weights in their matrices; biases are left out."""
    active_feed_forward: int
    """Of these, those that one token uses; blocks that do not run are not counted here."""
    modulation: int
    """Parameters of the blocks' own modulations."""
    dense_parameters: int
    parameters: int
    active_parameters: int
    """Those that one token uses, routers among them; of a group of blocks, as many as run of the mean block."""
    routers: int
    """Parameters of the routers."""
    dense_flops: int
    flops: int
    dense_bytes: int
    """Of the weights in memory, in bfloat16."""
    bytes: int
    """The same, with what is held as 8-bit codes."""
    dense_seconds: float | None = None
    """Of the processor for such a call here, see `try_call`; None where it was not tried."""
    seconds: float | None = None

    @property
    def active_fraction(self) -> float:
        """Share of the feed-forward matrices that one token uses."""
        return self.active_feed_forward / self.feed_forward

    def to_dict(self) -> dict[str, Any]:
        """Every field, for JSON."""
        return {**asdict(self), "active_fraction": self.active_fraction}

    def summary(self) -> str:
        """The count as a few lines of text."""
        frames = f", {self.frames} frames" if self.frames else ""
        rows = (
            ("parameters", self.dense_parameters, self.parameters),
            ("used by a token", self.dense_parameters, self.active_parameters),
            ("feed-forward", self.feed_forward, self.active_feed_forward),
            ("FLOPs of a call", self.dense_flops, self.flops),
            ("bytes, bfloat16", self.dense_bytes, self.bytes),
        )
        lines = [f"{self.model} ({self.transformer}), {self.width} x {self.height}{frames}"]
        if self.dense_seconds is not None and self.seconds is not None:
            before, after = 1e3 * self.dense_seconds, 1e3 * self.seconds
            lines.append(
                f"  {'time of a call':<16}{before:>7.1f}ms dense{after:>7.1f}ms converted  "
                f"{after / before:.3f} of it, tried here with random weights"
            )
        lines[1:1] = [
            f"  {name:<16}{_short(dense):>9} dense{_short(after):>9} converted  {after / dense:.3f} of it"
            for name, dense, after in rows
        ]
        lines.append(
            f"  {self.layers} feed-forward layers; modulations of the blocks {_short(self.modulation)} dense; "
            f"routers {_short(self.routers)}, counted as used"
        )
        return "\n".join(lines)


def count(model: Any, conversion: Conversion, **size: int | None) -> Count:
    """What `conversion` would make of `model`, from its configuration alone: nothing is downloaded or computed.

    The counts are those of the real forward pass on the meta device, in which any expert stands for the chosen ones,
    which are of one size, and the first blocks of a group for those that run.

    Args:
        model: a published model ("flux.1", see `outpace.accel.estimate.MODELS`), a folder written by save_pretrained, a
            diffusers pipeline or a dense transformer.
        conversion: what is done to it.
        size: height, width, frames and text_tokens; what is left out is the model's own.

    Raises: UnknownNameError, InputError, ConfigError, UnsupportedModelError: with what to do.

    >>> count("flux.1", Conversion(experts=Experts())).active_fraction  # doctest: +SKIP
    0.375
    """
    from ..estimate.recording import record_call
    from ..estimate.sample import sample_of

    sample = sample_of(model, **size)
    dense = sample.transformer
    converted = convert(dense, conversion)
    weights = [site.read().matrix_weights for site in find_sites(dense)]
    layers = find_experts(converted)
    idle = sum(round(_matrices(layer.experts) * _idle(layer)) for layer in layers.values())
    idle += sum(round(_gathered_from(layer) * _unused(layer)) for layer in find_noise_experts(converted).values())

    def flops_of(transformer: Any, level: int = 0) -> int:
        for one in (*find_noise_experts(transformer).values(), *(found for _, found in find_scheduled(transformer))):
            one.noise.untold = level
        return record_call(transformer, sample.inputs).flops

    levels = range(max(1, conversion.levels))  # which hold equally many of the calls
    routers = [part for name, part in converted.named_parameters() if {"router", "block_routers"} & {*name.split(".")}]
    return Count(
        model=sample.model.name,
        transformer=sample.model.transformer,
        height=sample.height,
        width=sample.width,
        frames=sample.frames,
        layers=len(weights),
        feed_forward=sum(weights),
        active_feed_forward=sum(weights) - idle,
        modulation=sum(parameter_count(linear) for linear in find_modulations(dense).values()),
        dense_parameters=parameter_count(dense),
        parameters=parameter_count(converted),
        active_parameters=active_parameters(converted),
        routers=sum(part.numel() for part in routers),
        dense_flops=flops_of(dense),
        flops=round(sum(flops_of(converted, level) for level in levels) / len(levels)),
        dense_bytes=2 * parameter_count(dense),
        bytes=weight_bytes(converted, torch.bfloat16),
    )


def active_parameters(transformer: nn.Module) -> int:
    """Parameters that one token uses: without experts and blocks beyond those that are active."""

    def used(module: nn.Module) -> float:
        idle = sum(parameter_count(layer.experts) * _idle(layer) for layer in find_experts(module).values())
        by_noise = sum(
            (_own(layer) - (0 if layer.bias is None else layer.bias.numel())) * _unused(layer)
            + parameter_count(layer.changes)  # added to the others before they are used
            for layer in find_noise_experts(module).values()
        )
        return parameter_count(module) - idle - by_noise

    left_out = sum(
        sum(used(block) for block in group.members) * (1 - group.active / len(group.members))
        for group in find_groups(transformer)
    )
    for block, scheduled in find_scheduled(transformer):
        levels, stand_ins = len(scheduled.noise.borders) + 1, list(block.stand_ins.children())  # pyright: ignore
        own = used(block) - sum(map(parameter_count, stand_ins))
        gone = 0 if scheduled.all else len(scheduled.without)
        left_out += own * gone / levels
        left_out += sum(map(parameter_count, stand_ins)) * (1 if scheduled.all else 1 - 1 / levels)
    return round(used(transformer) - left_out)


def _idle(layer: Any) -> float:
    active = layer.layout.experts if layer.active == "all" else layer.active
    return 1 - active / layer.layout.experts


def _unused(layer: NoiseFeedForward) -> float:
    return 1 - layer.fraction


def _own(layer: NoiseFeedForward) -> int:
    """Parameters of the layer without what noise levels add to them."""
    return parameter_count(layer) - parameter_count(layer.changes)


def _gathered_from(layer: NoiseFeedForward) -> int:
    """Weights in the matrices that a noise level's are gathered from."""
    parts = [part for part in (layer.up, layer.gate, layer.down) if part is not None]
    return sum(part.in_features * part.out_features for part in parts)


def parameter_count(module: nn.Module) -> int:
    """Its parameters, those among them that are held as 8-bit codes."""
    codes = sum(layer.codes.numel() for layer in find_integers(module).values())
    return codes + sum(parameter.numel() for parameter in module.parameters())


def _matrices(experts: Any) -> int:
    return sum(part.numel() for part in (experts.up, experts.down, experts.gate) if part is not None)


def _short(number: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= unit:
            return f"{number / unit:.3f} {name}"
    return f"{number:.0f}"
