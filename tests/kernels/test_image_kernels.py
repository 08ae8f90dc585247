"""Kernels of the vision models against float64 written another way, on shapes drawn at random, and bad inputs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import ConfigError, UnknownNameError
from outpace.kernels.attention.attend import attend
from outpace.kernels.attention.channels import channel_attention, channel_weights, reference_channel_attention
from outpace.kernels.attention.windows import (
    from_windows,
    into_windows,
    reference_window_attention,
    relative_bias,
    window_attention,
)
from outpace.kernels.convolution.dynamic import dynamic_depthwise_conv, reference_dynamic_depthwise_conv
from outpace.kernels.convolution.recursive import recursive_gating, reference_recursive_gating
from outpace.kernels.feed_forward.axis_mix import axis_mix, reference_axis_mix

torch.set_num_threads(1)
quick = settings(max_examples=25, deadline=None, database=None, derandomize=True)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5)


@quick
@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window=st.sampled_from([(1, 1), (2, 3), (4, 2), (5, 5), (1, 6)]),
    moved=st.booleans(),
    masked=st.booleans(),
    biased=st.booleans(),
)
def test_window_attention_equals_its_formula(
    seed: int, size: tuple[int, int], window: tuple[int, int], moved: bool, masked: bool, biased: bool
) -> None:
    q, k, v = (normal(seed + i, 2, *size, 2, width) for i, width in enumerate((4, 4, 3)))
    shift = (window[0] // 2, window[1] // 2) if moved else (0, 0)
    table = normal(seed + 3, 2, 2 * window[0] - 1, 2 * window[1] - 1)
    bias = relative_bias(table, window) if biased else None
    out = window_attention(q, k, v, window=window, shift=shift, bias=bias, masked=masked)
    near(out, reference_window_attention(q, k, v, window=window, shift=shift, bias=bias, masked=masked))


@quick
@given(
    seed=st.integers(0, 99),
    sides=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=3),
    moved=st.booleans(),
    masked=st.booleans(),
)
def test_windows_of_lines_and_volumes_too(seed: int, sides: list[tuple[int, int]], moved: bool, masked: bool) -> None:
    size, window = zip(*sides, strict=True)
    q, k, v = (normal(seed + i, 2, *size, 2, width) for i, width in enumerate((4, 4, 3)))
    shift = tuple(w // 2 for w in window) if moved else None
    bias = relative_bias(normal(seed, 2, *(2 * w - 1 for w in window)), window)
    out = window_attention(q, k, v, window=window, shift=shift, bias=bias, masked=masked)
    near(out, reference_window_attention(q, k, v, window=window, shift=shift, bias=bias, masked=masked))
    whole = tuple(-(-n // w) * w for n, w in sides)
    x = normal(seed, 2, *whole, 3)
    assert torch.equal(from_windows(into_windows(x, window), whole, window), x)


def test_a_window_as_large_as_the_grid_is_full_attention() -> None:
    q, k, v = (normal(i, 2, 4, 5, 2, 3) for i in range(3))
    flat = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
    expected = attend(*flat).transpose(1, 2).unflatten(1, (4, 5))
    torch.testing.assert_close(window_attention(q, k, v, window=(4, 5)), expected)


def test_a_shift_without_a_mask_differs_only_where_windows_wrap() -> None:
    q, k, v = (normal(i, 1, 8, 8, 1, 3) for i in range(3))
    apart, around = (window_attention(q, k, v, window=(4, 4), shift=(2, 2), masked=masked) for masked in (True, False))
    wraps = torch.ones(8, 8, dtype=torch.bool)
    wraps[2:6, 2:6] = False
    assert torch.equal((apart != around).any(-1)[0, :, :, 0], wraps)


def test_windows_are_put_back_where_they_came_from() -> None:
    x = normal(0, 2, 6, 8, 3)
    parts = into_windows(x, (3, 2))
    assert parts.shape == (2, 8, 6, 3) and torch.equal(parts[0, 1, 2], x[0, 1, 2])
    assert torch.equal(from_windows(parts, (6, 8), (3, 2)), x)


def test_the_bias_of_a_pair_is_the_tables_entry_for_its_offset() -> None:
    table = normal(0, 2, 3, 5)
    bias = relative_bias(table, (2, 3))
    for query in range(6):
        for key in range(6):
            offset = query // 3 - key // 3 + 1, query % 3 - key % 3 + 2
            assert torch.equal(bias[:, query, key], table[:, offset[0], offset[1]])
    larger = relative_bias(table, (4, 6))
    torch.testing.assert_close(larger[:, 0, 23], table[:, 0, 0])  # corners stay on corners


@quick
@given(
    seed=st.integers(0, 99),
    heads=st.integers(1, 3),
    channels=st.integers(1, 5),
    normaliser=st.sampled_from(["softmax", "relu"]),
    size=st.sampled_from([1.0, 1e-6]),
)
def test_channel_attention_equals_its_formula(
    seed: int, heads: int, channels: int, normaliser: str, size: float
) -> None:
    """Of small numbers too: a cosine does not depend on how long vectors are."""
    q, k, v = (normal(seed + i, 2, heads, channels, 7) * length for i, length in enumerate((size, size, 1.0)))
    temperature = normal(seed + 3, heads)
    out = channel_attention(q, k, v, temperature, normaliser=normaliser)
    near(out, reference_channel_attention(q, k, v, temperature, normaliser=normaliser))


def test_relu_leaves_about_half_of_the_channel_weights_at_zero() -> None:
    weights = channel_weights(normal(0, 1, 2, 40, 9), normal(1, 1, 2, 40, 9), torch.ones(2), normaliser="relu")
    assert 0.45 < float((weights == 0).float().mean()) < 0.55


@quick
@given(seed=st.integers(0, 99), axis=st.integers(-4, 3), out=st.integers(1, 4), biased=st.booleans())
def test_mixing_along_an_axis_equals_a_sum(seed: int, axis: int, out: int, biased: bool) -> None:
    x = normal(seed, 2, 3, 4, 5)
    weight, bias = normal(seed + 1, out, x.shape[axis]), normal(seed + 2, out) if biased else None
    near(axis_mix(x, weight, bias, axis=axis), reference_axis_mix(x, weight, bias, axis=axis))


@quick
@given(seed=st.integers(0, 99), groups=st.sampled_from([1, 2, 4]), width=st.sampled_from([1, 3, 5]))
def test_dynamic_convolution_equals_a_loop(seed: int, groups: int, width: int) -> None:
    x, weight = normal(seed, 2, 4, 3, 5), normal(seed + 1, 2, groups, width, width, 3, 5)
    near(dynamic_depthwise_conv(x, weight), reference_dynamic_depthwise_conv(x, weight))


def test_dynamic_convolution_with_one_filter_everywhere_is_a_convolution() -> None:
    x, weight = normal(0, 2, 6, 8, 9), normal(1, 6, 7, 7)
    everywhere = weight[None, ..., None, None].expand(2, 6, 7, 7, 8, 9)
    expected = F.conv2d(x, weight[:, None], padding=3, groups=6)
    torch.testing.assert_close(dynamic_depthwise_conv(x, everywhere), expected, rtol=1e-4, atol=1e-5)


def test_dynamic_convolution_has_the_gradients_of_its_formula() -> None:
    x, weight = normal(0, 1, 2, 3, 3).double(), normal(1, 1, 1, 3, 3, 3, 3).double()
    assert torch.autograd.gradcheck(dynamic_depthwise_conv, (x.requires_grad_(), weight.requires_grad_()))


@quick
@given(seed=st.integers(0, 99), widths=st.lists(st.integers(1, 5), min_size=1, max_size=4), biased=st.booleans())
def test_recursive_gating_equals_its_formula(seed: int, widths: list[int], biased: bool) -> None:
    gates = [normal(seed + i, 2, width, 3, 2) for i, width in enumerate(widths)]
    mixes = [(normal(seed, b, a), normal(seed, b) if biased else None) for a, b in pairwise(widths)]
    first = normal(seed + 9, 2, widths[0], 3, 2)
    near(recursive_gating(first, gates, mixes), reference_recursive_gating(first, gates, mixes))


def test_what_does_not_fit_is_said() -> None:
    x = normal(0, 1, 4, 4, 2, 3)
    with pytest.raises(ConfigError, match="moved by less"):
        window_attention(x, x, x, window=(2, 2), shift=(2, 0))
    with pytest.raises(ConfigError, match=r"\(2, 4, 4\)"):
        window_attention(x, x, x, window=(2, 2), bias=normal(0, 2, 3, 3))
    with pytest.raises(ConfigError, match="rows, columns, heads"):
        window_attention(x[0], x[0], x[0], window=(2, 2))
    with pytest.raises(ConfigError, match="the window's 3"):
        window_attention(x, x, x, window=(2, 2, 2))
    with pytest.raises(ConfigError, match="moved by less"):
        window_attention(x, x, x, window=(2, 2), shift=(1,))
    with pytest.raises(ConfigError, match="heads, rows, columns"):
        relative_bias(normal(0, 2, 3, 3), (2, 2, 2))
    with pytest.raises(ConfigError, match="pad it"):
        into_windows(x[..., 0], (3, 2))
    with pytest.raises(ConfigError, match="do not fill a grid"):
        from_windows(normal(0, 1, 4, 4, 2), (4, 4), (3, 3))
    with pytest.raises(UnknownNameError, match="did you mean 'relu'"):
        channel_attention(x[0], x[0], x[0], torch.ones(4), normaliser="rellu")
    with pytest.raises(ConfigError, match="temperature"):
        channel_attention(x[0], x[0], x[0], torch.ones(3))
    with pytest.raises(ConfigError, match="along axis 1"):
        axis_mix(x, normal(0, 2, 3), axis=1)
    with pytest.raises(ConfigError, match="bias"):
        axis_mix(x, normal(0, 2, 4), normal(0, 3), axis=1)
    with pytest.raises(ConfigError, match="width odd"):
        dynamic_depthwise_conv(normal(0, 1, 2, 4, 4), normal(0, 1, 2, 2, 2, 4, 4))
    with pytest.raises(ConfigError, match="matrix for every further gate"):
        recursive_gating(normal(0, 1, 2, 3, 3), [normal(0, 1, 2, 3, 3)], [(normal(0, 2, 2), None)])
    with pytest.raises(ConfigError, match="must be"):
        recursive_gating(normal(0, 1, 2, 3, 3), [normal(0, 1, w, 3, 3) for w in (2, 4)], [(normal(0, 2, 4), None)])
