"""A forecast of order m is exact for polynomials of degree m, however the anchors are spaced."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outpace.accel.estimate.traffic import Traffic
from outpace.kernels.forecast import (
    COMBINE,
    SUMS,
    combination_error,
    combine,
    forecast,
    lagrange_weights,
    reference,
    relative_error,
    taylor_weights,
)
from outpace.kernels.forecast import torch as plain

torch.set_num_threads(1)
quick = settings(
    max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@st.composite
def spacing(draw: st.DrawFn, least: int = 1, most: int = 4) -> tuple[list[float], float]:
    """Noise levels of past steps, newest first, and the level to forecast at: gaps differ up to a factor of 50."""
    count = draw(st.integers(least, most))
    gaps = draw(st.lists(st.floats(0.01, 0.5), min_size=count, max_size=count))
    newest = draw(st.floats(-1.0, 1.0))
    nodes = [newest + sum(gaps[1 : i + 1]) for i in range(count)]
    return nodes, newest - gaps[0]


def polynomial(degree: int, seed: int, shape: tuple[int, ...] = (3, 5)) -> torch.Tensor:
    return torch.randn(degree + 1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(coefficients: torch.Tensor, at: float) -> torch.Tensor:
    return sum((c * at**k for k, c in enumerate(coefficients)), torch.zeros_like(coefficients[0]))


@pytest.mark.parametrize("degree", range(4))
@quick
@given(case=spacing(4, 4), seed=st.integers(0, 10_000))
def test_order_m_reproduces_degree_m(degree: int, case: tuple[list[float], float], seed: int) -> None:
    nodes, at = case[0][: degree + 1], case[1]
    coefficients = polynomial(degree, seed)
    values, truth = [value(coefficients, node) for node in nodes], value(coefficients, at)
    weights = lagrange_weights(nodes, at)
    # float32 holds each value to 6e-8; the weights carry that into the forecast.
    scale = sum(abs(w) * float(v.abs().max()) for w, v in zip(weights, values, strict=True))
    got = forecast([v.float() for v in values], nodes, at).double()
    assert (got - truth).abs().max() <= 1e-5 * max(scale, float(truth.abs().max()))
    exact = forecast(values, nodes, at)
    assert (exact - truth).abs().max() <= 1e-10 * max(scale, 1.0)


@pytest.mark.parametrize("degree", range(4))
def test_order_m_reproduces_degree_m_on_a_shifted_schedule(degree: int) -> None:
    """The spacing of a real schedule: FLUX's shifted noise levels at 28 steps, some steps skipped."""
    levels = [3.0 * s / (1.0 + 2.0 * s) for s in (1.0 - i / 28 for i in range(28))]
    nodes, at = [levels[i] for i in (12, 11, 8, 5)][: degree + 1], levels[15]
    coefficients = polynomial(degree, seed=degree)
    truth = value(coefficients, at)
    got = forecast([value(coefficients, node).float() for node in nodes], nodes, at).double()
    assert (got - truth).abs().max() / truth.abs().max() <= 1e-5


@quick
@given(case=spacing(), seed=st.integers(0, 10_000))
def test_agrees_with_divided_differences(case: tuple[list[float], float], seed: int) -> None:
    nodes, at = case
    values = list(torch.randn(len(nodes), 4, generator=torch.Generator().manual_seed(seed)))
    weights = lagrange_weights(nodes, at)
    scale = sum(abs(w) for w in weights) * max(float(v.abs().max()) for v in values)
    assert (forecast(values, nodes, at) - reference.forecast(values, nodes, at)).abs().max() <= 1e-5 * scale


@quick
@given(case=spacing())
def test_weights_sum_to_one_under_both_rules(case: tuple[list[float], float]) -> None:
    nodes, at = case
    for rule in (lagrange_weights, taylor_weights):
        weights = rule(nodes, at)
        assert math.isclose(sum(weights), 1.0, abs_tol=1e-9 * sum(abs(w) for w in weights))


@quick
@given(case=spacing(1, 2))
def test_the_rules_agree_up_to_order_one(case: tuple[list[float], float]) -> None:
    nodes, at = case
    for exact, published in zip(lagrange_weights(nodes, at), taylor_weights(nodes, at), strict=True):
        assert math.isclose(exact, published, rel_tol=1e-9, abs_tol=1e-9)


def test_the_published_recursion_is_biased_from_order_two_on() -> None:
    """Even with even spacing: t^2 from steps 5, 10, 15 at step 18 gives 309, not 324."""

    def square(weights: list[float], nodes: list[float]) -> float:
        return sum(w * n * n for w, n in zip(weights, nodes, strict=True))

    for nodes in ([15.0, 10.0, 5.0], [15.0, 10.0, 5.0, 0.0]):
        assert square(lagrange_weights(nodes, 18.0), nodes) == pytest.approx(324.0)
        assert square(taylor_weights(nodes, 18.0), nodes) == pytest.approx(309.0)


def test_the_published_recursion_divides_every_difference_by_its_own_last_gap() -> None:
    """Uneven spacing, written out by hand: F1 = (h2 - h1) / (t2 - t1), F2 = (F1 - F1 before) / (t2 - t1)."""
    h, t, at = [2.0, 3.0, 7.0], [0.0, 1.0, 5.0], 6.0
    before, now = (h[1] - h[0]) / (t[1] - t[0]), (h[2] - h[1]) / (t[2] - t[1])
    second = (now - before) / (t[2] - t[1])
    by_hand = h[2] + now * (at - t[2]) + second * (at - t[2]) ** 2 / 2
    weights = taylor_weights(t[::-1], at)
    assert sum(w * v for w, v in zip(weights, h[::-1], strict=True)) == pytest.approx(by_hand)


def test_half_precision_is_accumulated_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    values = [(100.0 + torch.randn(4096, generator=generator)).bfloat16() for _ in range(4)]
    nodes, at = [0.4, 0.45, 0.52, 0.6], 0.31
    truth = reference.forecast(values, nodes, at)
    got = forecast(values, nodes, at)
    assert got.dtype == torch.bfloat16
    # One rounding of the result to bfloat16 (8 bits), and nothing else.
    assert ((got.double() - truth).abs() <= truth.abs() * 2.0**-8 * 1.01).all()
    narrow = sum(v * w for v, w in zip(values, lagrange_weights(nodes, at), strict=True))
    assert isinstance(narrow, torch.Tensor)
    assert (narrow.double() - truth).abs().mean() > 2 * (got.double() - truth).abs().mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_combination_keeps_the_type_and_leaves_its_inputs_alone(dtype: torch.dtype) -> None:
    values = [torch.full((2, 3), float(i + 1), dtype=dtype) for i in range(3)]
    before = [v.clone() for v in values]
    for weights in ([1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.5, -1.0, 2.0]):
        got = combine(values, weights)
        assert got.dtype == dtype
        assert torch.equal(got, torch.full((2, 3), sum(w * (i + 1) for i, w in enumerate(weights)), dtype=dtype))
        got.add_(1.0)
        assert all(torch.equal(v, b) for v, b in zip(values, before, strict=True))


def test_relative_error_is_zero_one_and_never_hides_a_nan() -> None:
    truth = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert relative_error(truth, truth) == 0.0
    assert relative_error(2 * truth, truth) == pytest.approx(1.0)
    assert relative_error(torch.zeros(3), torch.zeros(3)) == 0.0
    assert relative_error(2e-8 * truth, 1e-8 * truth) == pytest.approx(1.0)  # small numbers are no zeros
    poisoned = truth.clone()
    poisoned[0, 0] = torch.nan
    assert relative_error(poisoned, truth).isnan() and relative_error(truth, poisoned).isnan()
    assert relative_error(truth.bfloat16(), truth.bfloat16()).dtype == torch.float32


def random_values(count: int, shape: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]


WEIGHTS = [1.75, -0.9375, 0.25, -0.0625]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("laid", ["together", "with gaps"])
def test_chunks_change_nothing(dtype: torch.dtype, laid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is worked on at once: combinations to the bit, errors as the mean of everything gives them."""
    values = random_values(4, (7, 33, 10), dtype)
    if laid == "with gaps":
        values = [v[:, ::2, 1:] for v in values]
    *anchors, truth = values
    wide = torch.promote_types(dtype, torch.float32)
    by_hand = sum((v.to(wide) * w for v, w in zip(anchors, WEIGHTS, strict=False)), torch.zeros((), dtype=wide))
    assert isinstance(by_hand, torch.Tensor)
    error = (by_hand.to(dtype).double() - truth.double()).abs().mean() / truth.double().abs().mean()
    found = []
    for chunk in (1 << 20, 64, 7):
        monkeypatch.setattr(plain, "CHUNK", chunk)
        found.append(combine(anchors, WEIGHTS[:3]))
        torch.testing.assert_close(found[-1], by_hand.to(dtype))
        assert float(combination_error(anchors, WEIGHTS[:3], truth)) == pytest.approx(float(error), rel=2e-3)
        exact = relative_error(by_hand.to(dtype), truth)
        assert float(exact) == pytest.approx(float(error), rel=1e-5) and exact.dtype == torch.float32
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_float32_numbers_are_held_of_one_chunk_at_most(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "CHUNK", 512)
    *anchors, truth = random_values(4, (64, 512), dtype)
    chunk = 4 * 512
    with Traffic() as combining:
        result = combine(anchors, WEIGHTS[:3])
    with Traffic() as judging:
        combination_error(anchors, WEIGHTS[:3], truth)
    assert combining.peak(torch.float32) <= (chunk if dtype != torch.float32 else result.nbytes)
    # Beside the chunk: scalars that it is summed into.
    assert judging.peak(torch.float32) <= chunk + 64


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_kernels_agree_with_plain_torch(count: int, dtype: torch.dtype) -> None:
    """Under Triton's interpreter; a size that is no multiple of a tile, memory after the end that holds NaN."""
    kernels = pytest.importorskip("outpace.kernels.forecast.triton", exc_type=ImportError)
    if not kernels.INTERPRETED:
        pytest.skip("TRITON_INTERPRET is off")
    weights = [*WEIGHTS, 0.5, -0.5][:count]
    values = []
    for value in random_values(count + 1, (3, 1111), dtype):
        longer = torch.full((value.numel() + 4096,), torch.nan, dtype=dtype)
        values.append(longer[: value.numel()].view(value.shape).copy_(value))
    *anchors, truth = values
    close = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(kernels.combine(anchors, weights), plain.combine(anchors, weights), **close)
    found = kernels.sums(anchors, weights, truth)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain.sums(anchors, weights, truth), rtol=1e-3, atol=0.0)
    poisoned = truth.clone()
    poisoned[2, 1110] = torch.nan
    assert kernels.sums(anchors, weights, poisoned).isnan().all()


def test_what_the_kernels_cannot_take_is_said() -> None:
    kernels = pytest.importorskip("outpace.kernels.forecast.triton", exc_type=ImportError)
    value = torch.zeros(4)
    assert kernels.combine_refuses(value, 7, True) == "7 values: takes up to 6"
    assert "with gaps" in kernels.combine_refuses(value, 2, False)
    assert "float64" in kernels.combine_refuses(value.double(), 2, True)
    assert [b.name for b in COMBINE.backends] == [b.name for b in SUMS.backends] == ["triton", "torch"]
    combine([value, value], [0.5, 0.5])
    assert COMBINE.last == "torch"
