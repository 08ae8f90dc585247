"""Wavelets are exactly undone, are what their formulas say, and refuse what they cannot take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import ConfigError
from outpace.kernels.wavelets import dual_tree, haar, inverse_dual_tree, inverse_haar

sides = st.integers(1, 20).map(lambda half: 2 * half)


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 3), channels=st.integers(1, 3), rows=sides, columns=sides, seed=st.integers(0, 99))
def test_pictures_come_back(batch: int, channels: int, rows: int, columns: int, seed: int) -> None:
    x = torch.randn(batch, channels, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = dual_tree(x)
    assert low.shape == x.shape and high.shape == (batch, channels, 6, rows // 2, columns // 2)
    assert (inverse_dual_tree(low, high) - x).abs().max() < 1e-12
    assert haar(x).shape == (batch, 4 * channels, rows // 2, columns // 2)
    assert (inverse_haar(haar(x)) - x).abs().max() < 1e-12


def test_both_are_linear_and_have_gradients() -> None:
    x = torch.randn(1, 1, 10, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: torch.view_as_real(dual_tree(y)[1]), x, fast_mode=True)
    assert torch.autograd.gradcheck(lambda y: inverse_dual_tree(*dual_tree(y)), x, fast_mode=True)
    assert torch.autograd.gradcheck(haar, x, fast_mode=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dual_tree(torch.zeros(1, 1, 11, 12)), "even sides"),
        (lambda: dual_tree(torch.zeros(1, 1, 0, 12)), "even sides"),
        (lambda: dual_tree(torch.zeros(1, 12, 12)), "even sides"),
        (lambda: dual_tree(torch.zeros(1, 1, 12, 12, dtype=torch.long)), "real numbers"),
        (lambda: inverse_dual_tree(torch.zeros(1, 1, 12, 12), torch.zeros(1, 1, 6, 6, 6)), "complex numbers"),
        (lambda: haar(torch.zeros(1, 1, 3, 4)), "even sides"),
        (lambda: inverse_haar(torch.zeros(1, 6, 3, 4)), "four bands"),
    ],
)
def test_bad_input_ends_in_one_clear_error(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_the_dual_tree_is_that_of_pytorch_wavelets(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec("pytorch_wavelets")
    if spec is None or spec.origin is None or find_spec("pywt") is None:
        pytest.skip("make parity")
    root = Path(spec.origin).parent.parent
    resources = ModuleType("pkg_resources")  # of setuptools, which new ones no longer bring

    def stream(package: str, name: str) -> object:
        return (root.joinpath(*package.split(".")) / name).open("rb")

    resources.__dict__["resource_stream"] = stream
    monkeypatch.setitem(sys.modules, "pkg_resources", resources)
    from pytorch_wavelets import DTCWTForward, DTCWTInverse  # pyright: ignore[reportMissingImports]

    x = torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    low, (high, *_) = DTCWTForward(J=1, biort="near_sym_b", qshift="qshift_b")(x)
    ours_low, ours_high = dual_tree(x)
    torch.testing.assert_close(ours_low, low, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.view_as_real(ours_high), high, rtol=0, atol=1e-5)
    bands = torch.randn(ours_high.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    back = DTCWTInverse(biort="near_sym_b", qshift="qshift_b")((low, [torch.view_as_real(bands)]))
    torch.testing.assert_close(inverse_dual_tree(low, bands), back, rtol=0, atol=1e-5)
