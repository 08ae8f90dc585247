"""GELU, softmax and LayerNorm of codes beside float64, on codes drawn at random, and bad inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from outpace.errors import ConfigError
from outpace.kernels.quantised import Quantised, quantise, table_activation, table_layer_norm, table_softmax

quick = settings(max_examples=20, deadline=None, database=None, derandomize=True)
CODES = quantise(torch.ones(2, 4), power_of_two=True)


def codes(seed: int, width: int, block: int | None, size: float) -> Quantised:
    x = torch.randn(3, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * size
    return quantise(x, block=block, power_of_two=True)


@quick
@given(
    seed=st.integers(0, 99),
    width=st.integers(1, 70),
    block=st.sampled_from([None, 1, 16]),
    size=st.sampled_from([0.0, 1e-6, 1.0, 50.0]),
)
def test_tables_are_near_what_the_codes_stand_for(seed: int, width: int, block: int | None, size: float) -> None:
    x = codes(seed, width, block, size)
    exact = x.dequantised()
    for activation, function in (("gelu", F.gelu), ("silu", F.silu), ("relu", F.relu)):
        found = table_activation(x, activation=activation).dequantised()
        step = x.scale.expand(*x.codes.shape).flatten(-2)[..., :width]
        assert ((found - function(exact)).abs() <= 0.5001 * step).all()
    weights = table_softmax(x, block=block).dequantised()
    assert (weights - exact.softmax(-1)).abs().max() < 0.02
    if block is None and width > 1:
        normal = table_layer_norm(x, torch.ones(width), torch.zeros(width)).dequantised()
        assert (normal - F.layer_norm(exact, (width,))).abs().max() < 0.02 * width**0.5


def test_nothing_allowed_weighs_nothing() -> None:
    assert not table_softmax(CODES, allowed=torch.zeros(4, dtype=torch.bool)).dequantised().any()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: table_activation(CODES, activation="tanh"), "activations by table are gelu"),
        (lambda: table_softmax(quantise(torch.rand(2, 4) * 3)), "powers of two"),
        (lambda: table_softmax(quantise(torch.rand(2, 4), symmetric=False, power_of_two=True)), "symmetric"),
        (lambda: table_layer_norm(CODES, torch.ones(3), torch.ones(4)), "must have shape"),
    ],
)
def test_bad_inputs_end_in_one_error(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        call()
