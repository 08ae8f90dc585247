"""Whatever is wrong with one input of a kernel of the companion models, it runs or ends in one error of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import OutpaceError
from outpace.kernels.attention import attend
from outpace.kernels.attention.axial import axial_attention
from outpace.kernels.attention.channels import channel_attention
from outpace.kernels.attention.local_global import local_global_attention
from outpace.kernels.attention.windows import from_windows, into_windows, relative_bias, window_attention
from outpace.kernels.convolution import causal_conv
from outpace.kernels.convolution.dynamic import dynamic_depthwise_conv
from outpace.kernels.convolution.recursive import recursive_gating
from outpace.kernels.feed_forward import glu
from outpace.kernels.feed_forward.axis_mix import axis_mix
from outpace.kernels.linear_attention import delta_rule, gated_linear_attention, scan
from outpace.kernels.moe import Experts, expert_ffn
from outpace.kernels.packing import Packing
from outpace.kernels.quantised import quantise, quantised_linear, table_layer_norm, table_softmax
from outpace.kernels.sparsity import statistical_threshold, statistical_top_k
from outpace.kernels.tiles import Tiles, in_tiles
from outpace.kernels.wavelets import dual_tree, haar, inverse_dual_tree, inverse_haar

torch.set_num_threads(1)
Inputs = dict[str, Any]


def numbers(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, max(1, math.prod(shape))).view(shape)


QKV = {name: numbers(2, 2, 3, 4) for name in "qkv"}
GRID = {name: numbers(1, 4, 4, 2, 4) for name in "qkv"}
KERNELS: dict[str, tuple[Callable[..., Any], Inputs]] = {
    "attend": (attend, {**QKV, "window": 2, "bias": numbers(2, 3, 3), "gate": numbers(2, 2, 3)}),
    "window attention": (window_attention, {**GRID, "window": (2, 2), "shift": (1, 1), "bias": numbers(2, 4, 4)}),
    "into windows": (into_windows, {"x": numbers(1, 4, 4, 3), "window": (2, 2)}),
    "from windows": (from_windows, {"x": numbers(1, 4, 4, 3), "size": (4, 4), "window": (2, 2)}),
    "relative bias": (relative_bias, {"table": numbers(2, 3, 3), "window": (2, 2)}),
    "channel attention": (channel_attention, {**QKV, "temperature_H": numbers(2)}),
    "axial attention": (axial_attention, {**GRID, "axis": 0}),
    "local-global attention": (
        local_global_attention,
        {**{name: numbers(2, 5, 4) for name in ("q", "k", "v", "q_global", "k_global")}, "group": 2},
    ),
    "glu": (glu, {"x": numbers(2, 4), "up_HD": numbers(6, 4), "down_OH": numbers(3, 6), "gate_HD": numbers(6, 4)}),
    "axis mix": (axis_mix, {"x": numbers(2, 4, 3), "weight_OI": numbers(5, 4), "bias_O": numbers(5), "axis": 1}),
    "causal convolution": (
        causal_conv,
        {"x": numbers(2, 5, 3), "weight": numbers(3, 2), "bias": numbers(3), "state": numbers(2, 1, 3)},
    ),
    "dynamic convolution": (dynamic_depthwise_conv, {"x": numbers(1, 4, 3, 3), "weight": numbers(1, 2, 3, 3, 3, 3)}),
    "recursive gating": (
        lambda first, gate, further, mix: recursive_gating(first, [gate, further], [(mix, None)]),
        {
            "first": numbers(1, 2, 3, 3),
            "gate": numbers(1, 2, 3, 3),
            "further": numbers(1, 4, 3, 3),
            "mix": numbers(4, 2),
        },
    ),
    "gated linear attention": (
        gated_linear_attention,
        {**QKV, "log_decay": -numbers(2, 2, 3).abs(), "initial_state": numbers(2, 2, 4, 4)},
    ),
    "delta rule": (delta_rule, {**QKV, "beta": numbers(2, 2, 3), "initial_state": numbers(2, 2, 4, 4)}),
    "scan": (scan, {"x": numbers(2, 3, 4), "log_decay": -numbers(2, 3, 4).abs(), "initial_state": numbers(2, 4)}),
    "experts": (
        lambda x, up, down, index, gates: expert_ffn(
            x, Experts(activation="silu", up_EDH=up, down_EHO=down), index, gates
        ),
        {
            "x": numbers(5, 4),
            "up": numbers(3, 4, 6),
            "down": numbers(3, 6, 4),
            "index": torch.zeros(5, 2, dtype=torch.long),
            "gates": numbers(5, 2),
        },
    ),
    "packing": (lambda valid, x: Packing.of(valid).pack(x), {"valid": numbers(2, 3) > 0, "x": numbers(2, 3, 4)}),
    "unpacking": (lambda valid, x: Packing.of(valid).unpack(x), {"valid": numbers(2, 3) > 0, "x": numbers(3, 4)}),
    "quantise": (quantise, {"x": numbers(3, 8), "block": 4, "bits": 8}),
    "quantised linear": (
        lambda x, weight, bias, bits: quantised_linear(x, quantise(weight, block=4), bias, bits=bits),
        {"x": numbers(3, 8), "weight": numbers(5, 8), "bias": numbers(5), "bits": 8},
    ),
    "softmax by table": (lambda x: table_softmax(quantise(x, power_of_two=True)), {"x": numbers(3, 8)}),
    "norm by table": (
        lambda x, weight, bias: table_layer_norm(quantise(x, power_of_two=True), weight, bias),
        {"x": numbers(3, 8), "weight": numbers(8), "bias": numbers(8)},
    ),
    "threshold": (statistical_threshold, {"x": numbers(3, 8), "k": 2, "allowed": numbers(3, 8) > 0}),
    "statistical top-k": (statistical_top_k, {"x": numbers(3, 8), "k": 2}),
    "Haar wavelets": (haar, {"x": numbers(1, 2, 4, 6)}),
    "Haar wavelets back": (inverse_haar, {"bands": numbers(1, 8, 2, 3)}),
    "dual-tree wavelets": (dual_tree, {"x": numbers(1, 2, 10, 12)}),
    "dual-tree wavelets back": (
        lambda low, high: inverse_dual_tree(low, torch.complex(high.float(), high.float())),
        {"low": numbers(1, 2, 10, 12), "high": numbers(1, 2, 6, 5, 6)},
    ),
    "tiles": (
        lambda x, sides, overlap: in_tiles(lambda some: some, x, Tiles(sides=sides, overlap=overlap)),
        {"x": numbers(1, 2, 6, 6), "sides": (4, 4), "overlap": (1, 1)},
    ),
}
"""Name -> the kernel and inputs that it takes."""

OF_TENSORS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "one axis less": lambda x, _: x[0] if x.ndim else x,
    "one axis more": lambda x, _: x[None],
    "shorter": lambda x, axis: x.narrow(axis % x.ndim, 0, x.shape[axis % x.ndim] - 1) if x.ndim else x,
    "longer": lambda x, axis: torch.cat([x, x], axis % x.ndim) if x.ndim else x,
    "empty": lambda x, axis: x.narrow(axis % x.ndim, 0, 0) if x.ndim else x,
    "float64": lambda x, _: x.double(),
    "float16": lambda x, _: x.half(),
    "whole numbers": lambda x, _: x.long(),
    "bool": lambda x, _: x.bool(),
}
NUMBERS = (-3, 0, 1, 5, 9)


def test_the_inputs_are_good_as_they_are() -> None:
    for kernel, good in KERNELS.values():
        kernel(**good)


def one_wrong_input(name: str, data: st.DataObject) -> None:
    """Changes an input drawn at random and calls the kernel: only an error of ours, of one line, may come of it."""
    kernel, good = KERNELS[name]
    which = data.draw(st.sampled_from(sorted(good)))
    was = good[which]
    if isinstance(was, Tensor):
        change = data.draw(st.sampled_from(sorted(OF_TENSORS)))
        wrong: Any = OF_TENSORS[change](was, data.draw(st.integers(0, max(0, was.ndim - 1))))
    elif isinstance(was, tuple):
        wrong = tuple(data.draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3)))
    else:
        wrong = data.draw(st.sampled_from(NUMBERS))
    try:
        kernel(**{**good, which: wrong})
    except OutpaceError as error:
        assert str(error) and "\n" not in str(error)


def drawn(examples: int) -> settings:
    too_slow = [HealthCheck.too_slow]
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=too_slow
    )


@pytest.mark.parametrize("name", KERNELS)
@drawn(12)
@given(data=st.data())
def test_one_wrong_input_runs_or_ends_in_one_error(name: str, data: st.DataObject) -> None:
    one_wrong_input(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
@drawn(600)
@given(data=st.data())
def test_so_do_many(name: str, data: st.DataObject) -> None:
    one_wrong_input(name, data)
