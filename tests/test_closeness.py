"""The tolerance that tests share would notice what is no rounding."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_same_but_rounding, rounding


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-3, 5.0, 1e4])
def test_another_order_of_summing_passes_and_a_dropped_term_does_not(dtype: torch.dtype, size: float) -> None:
    make = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 64, generator=make, dtype=torch.float64) for _ in range(2))
    exact = (a * size) @ b
    forwards = exact.to(dtype)
    backwards = ((a.flip(1) * size).to(dtype) @ b.flip(0).to(dtype)) if dtype != torch.bfloat16 else forwards
    if dtype == torch.float64:
        assert_same_but_rounding(forwards, backwards)
    if dtype == torch.float32:
        assert_same_but_rounding((a * size).float() @ b.float(), backwards)
    fewer = ((a[:, 1:] * size) @ b[1:]).to(dtype)
    with pytest.raises(AssertionError):
        assert_same_but_rounding(forwards, fewer)
    assert 0 < rounding(forwards) <= 0.05 * float(forwards.abs().max())


def test_another_type_or_shape_is_no_rounding() -> None:
    with pytest.raises(AssertionError):
        assert_same_but_rounding(torch.ones(2), torch.ones(2, dtype=torch.float64))
    with pytest.raises(AssertionError):
        assert_same_but_rounding(torch.ones(2), torch.ones(3))
