"""MAXIM's weights, as its repository's Flax checkpoints have them: arrays like `stage_0_input_conv_1/kernel`.

arrays = numpy.load("maxim_checkpoint.npz")
load_published(model, {name: torch.from_numpy(arrays[name]) for name in arrays.files})
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from ...weights import Weights, layout
from ..maxim import BOTTLENECKS, GROUPS, LEVELS, Maxim

Pair = tuple[str, str]
"""A layer by our name, and by theirs."""
AROUND = re.compile(r"^(?:opt/target/|params/)")
BESIDE = re.compile(r"^(?:opt/|state/|step$)")
"""What an optimiser keeps beside the weights."""


@layout(Maxim)
def maxim(weights: Weights, model: Maxim) -> Weights:
    """Kernels have their inputs first there, and a decoder reads the columns of the coarsest level first."""
    theirs = {AROUND.sub("", name): value for name, value in weights.items()}
    theirs = {name: value for name, value in theirs.items() if not BESIDE.match(name)}
    taken: Weights = {}
    for ours, name in _layers(model):
        for kind, part in (("kernel", "weight"), ("scale", "weight"), ("bias", "bias")):
            if f"{name}/{kind}" in theirs:
                value = theirs.pop(f"{name}/{kind}")
                taken[f"{ours}.{part}"] = _turned(value, "ConvTranspose" in name) if kind == "kernel" else value
    for stage in range(len(model.stages)):
        for level in range(LEVELS):
            if (weight := taken.get(place := f"stages.{stage}.decoders.{level}.mix.weight")) is not None:
                own, *coarsest_first = weight.flatten(1).chunk(LEVELS + 1, 1)
                taken[place] = torch.cat([own, *reversed(coarsest_first)], 1)
    return {**taken, **theirs}  # what has no place here is answered as any other weights that do not fit


def _turned(kernel: Tensor, transposed: bool) -> Tensor:
    """(Y, X, in, out) or (in, out) as torch has it; Flax lays a transposed filter the other way round."""
    if kernel.ndim != 4:
        return kernel.mT
    return kernel.flip(0, 1).permute(2, 3, 0, 1) if transposed else kernel.permute(3, 2, 0, 1)


def _layers(model: Maxim) -> Iterator[Pair]:
    for stage in range(len(model.stages)):
        ours, theirs = f"stages.{stage}", f"stage_{stage}"
        last = stage == len(model.stages) - 1
        for i in range(model.config.scales):
            yield f"{ours}.inputs.{i}", f"{theirs}_input_conv_{i}"
            yield from _cross(f"{ours}.input_gates.{i}", f"{theirs}_input_fuse_sam_{i}")
            if last:
                yield f"{ours}.outputs.{i}", f"{theirs}_output_conv_{i}"
            else:
                for part, number in (("features", 0), ("picture", 1), ("weigh", 2)):
                    yield f"{ours}.outputs.{i}.{part}", f"{theirs}_supervised_attention_module_{i}/Conv_{number}"
        for i in range(LEVELS):
            encoder, decoder = f"{theirs}_encoder_block_{i}", f"{theirs}_decoder_block_{i}"
            yield from _level(f"{ours}.encoders.{i}", encoder)
            yield from _cross(f"{ours}.encoder_gates.{i}", f"{encoder}/cross_gating_block")
            yield f"{ours}.downs.{i}", f"{encoder}/Conv_1"
            yield from _cross(f"{ours}.skip_gates.{i}", f"{theirs}_cross_gating_block_{i}")
            yield f"{ours}.ups.{i}", f"{decoder}/ConvTranspose_0"
            yield from _level(f"{ours}.decoders.{i}", f"{decoder}/UNetEncoderBlock_0")
            for j in range(LEVELS):
                # numbered through the whole model in the order of calls: skips and then decoders of each stage, both
                # from the coarsest level on; decoders also read the skips in that order
                coarse = LEVELS - 1 - i
                skip = (2 * stage * LEVELS + coarse) * LEVELS + j
                read = ((2 * stage + 1) * LEVELS + coarse) * LEVELS + LEVELS - 1 - j
                yield f"{ours}.to_skips.{i}.{j}.mix", f"UpSampleRatio_{skip}/Conv_0"
                yield f"{ours}.to_decoders.{i}.{j}.mix", f"UpSampleRatio_{read}/Conv_0"
        for block in range(BOTTLENECKS):
            yield from _bottleneck(f"{ours}.bottleneck.{block}", f"{theirs}_global_block_{block}")


def _level(ours: str, theirs: str) -> Iterator[Pair]:
    yield f"{ours}.mix", f"{theirs}/Conv_0"
    for group in range(GROUPS):
        yield from _multi_axis(f"{ours}.layers.{2 * group}", f"{theirs}/SplitHeadMultiAxisGmlpLayer_{group}")
        place, name = f"{ours}.layers.{2 * group + 1}", f"{theirs}/channel_attention_block_1{group}"
        yield from _channel_gate(place, name, ("conv1", "conv2"))


def _bottleneck(ours: str, theirs: str) -> Iterator[Pair]:
    yield f"{ours}.mix", f"{theirs}/input_proj"
    for group in range(GROUPS):
        yield from _multi_axis(f"{ours}.layers.{2 * group}", f"{theirs}/SplitHeadMultiAxisGmlpLayer_{group}")
        place, name = f"{ours}.layers.{2 * group + 1}", f"{theirs}/channel_attention_block_1_{group}"
        yield from _channel_gate(place, name, ("channel_mixing/Dense_0", "channel_mixing/Dense_1"))


def _channel_gate(ours: str, theirs: str, pair: tuple[str, str]) -> Iterator[Pair]:
    for place, name in (("branch.0", "LayerNorm"), ("branch.1", pair[0]), ("branch.3", pair[1])):
        yield f"{ours}.{place}", f"{theirs}/{name}"
    yield f"{ours}.weigh.0", f"{theirs}/channel_attention/Conv_0"
    yield f"{ours}.weigh.2", f"{theirs}/channel_attention/Conv_1"


def _multi_axis(ours: str, theirs: str) -> Iterator[Pair]:
    for place, name in (("norm", "LayerNorm_in"), ("up", "in_project"), ("down", "out_project")):
        yield f"{ours}.{place}", f"{theirs}/{name}"
    for part, word in (("grid", "Grid"), ("block", "Block")):
        for place, name in (
            ("norm", "LayerNorm"), ("up", "in_project"), ("down", "out_project"),
            ("gate_norm", f"{word}GatingUnit/intermediate_layernorm"), ("mix", f"{word}GatingUnit/Dense_0"),
        ):  # fmt: skip
            yield f"{ours}.{part}.{place}", f"{theirs}/{word}GmlpLayer/{name}"


def _cross(ours: str, theirs: str) -> Iterator[Pair]:
    for place, name in (("enlarge", "ConvTranspose_0"), ("x_in", "Conv_0"), ("y_in", "Conv_1")):
        yield f"{ours}.{place}", f"{theirs}/{name}"
    for side in "xy":
        for place, name in (("norm", "LayerNorm"), ("up", "in_project"), ("out", "out_project")):
            yield f"{ours}.{side}_{place}", f"{theirs}/{name}_{side}"
        for place, name in (
            ("norm", "LayerNorm_in"), ("up", "in_project"), ("down", "out_project"), ("grid", "Dense_0"),
            ("block", "Dense_1"),
        ):  # fmt: skip
            yield f"{ours}.{side}_gate.{place}", f"{theirs}/SplitHeadMultiAxisGating_{side}/{name}"
