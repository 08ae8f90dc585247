"""Attention among the slices of a grid against float64 written another way, and bad inputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import ConfigError
from outpace.kernels.attention import attend
from outpace.kernels.attention.axial import axial_attention, reference_axial_attention

torch.set_num_threads(1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(
    seed=st.integers(0, 99),
    size=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    axis=st.integers(0, 2),
    placed=st.booleans(),
    scale=st.sampled_from([None, 0.3]),
)
def test_it_equals_its_formula(seed: int, size: list[int], axis: int, placed: bool, scale: float | None) -> None:
    axis %= len(size)
    q, k, v = (normal(seed + i, 2, 2, *size, width) for i, width in enumerate((4, 4, 3)))
    positions = (normal(seed + 3, 2, size[axis], 4), normal(seed + 4, 2, size[axis], 4)) if placed else None
    out = axial_attention(q, k, v, axis=axis, positions=positions, scale=scale)
    expected = reference_axial_attention(q, k, v, axis=axis, positions=positions, scale=scale)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=2e-5)


def test_a_line_has_nothing_to_average_over() -> None:
    q, k, v = (normal(i, 2, 3, 5, 4) for i in range(3))
    torch.testing.assert_close(axial_attention(q, k, v, axis=0), attend(q, k, v))


def test_what_does_not_fit_is_said() -> None:
    q = normal(0, 1, 2, 4, 5, 3)
    with pytest.raises(ConfigError, match="axes of the grid"):
        axial_attention(q, q, q[:, :, :2], axis=0)
    with pytest.raises(ConfigError, match="none of them empty"):
        axial_attention(q[:, :, :0], q[:, :, :0], q[:, :, :0], axis=0)
    with pytest.raises(ConfigError, match="are 0 to 1, not 2"):
        axial_attention(q, q, q, axis=2)
    with pytest.raises(ConfigError, match=r"shape \(2, 4, 3\)"):
        axial_attention(q, q, q, axis=0, positions=(normal(0, 2, 5, 3), normal(0, 2, 4, 3)))
