"""Fronts and curves: properties that hold for any points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpace.evaluation.cells import Curve, compare_at
from outpace.evaluation.pareto import Point, at_speedup, at_speedup_of_draws, dominates, front, nearest_of_each

points = st.lists(
    st.tuples(st.floats(1, 8), st.floats(10, 90)).map(lambda p: Point(name=str(p), speedup=p[0], quality=p[1])),
    min_size=1,
    max_size=12,
)


@given(points)
def test_nobody_on_the_front_is_dominated_and_everybody_else_is(found: list[Point]) -> None:
    best = front(found)
    assert best and all(p in found for p in best)
    for p in found:
        beaten = any(dominates(q, p) for q in found)
        assert beaten != (p in best)


@given(points)
def test_along_the_front_quality_falls_as_speed_rises(found: list[Point]) -> None:
    best = front(found)
    assert [p.speedup for p in best] == sorted(p.speedup for p in best)
    assert [p.quality for p in best] == sorted((p.quality for p in best), reverse=True)


@given(points, st.floats(0.5, 12))
def test_a_curve_is_read_between_its_points_and_never_beyond(found: list[Point], target: float) -> None:
    speeds = np.array([p.speedup for p in found])
    qualities = np.array([p.quality for p in found])
    value = at_speedup(speeds, qualities, target)
    if speeds.min() <= target <= speeds.max():
        assert qualities.min() - 1e-9 <= value <= qualities.max() + 1e-9
    elif target < speeds.min() * (1 - 1e-6) or target > speeds.max() * (1 + 1e-6):
        assert math.isnan(value)


@given(points, st.floats(0.5, 12))
def test_all_draws_at_once_equal_one_at_a_time(found: list[Point], target: float) -> None:
    speeds = np.unique([round(p.speedup, 3) for p in found])
    qualities = np.array([p.quality for p in found])[: speeds.size]
    one = at_speedup(speeds, qualities, target)
    many = at_speedup_of_draws(np.stack([speeds, speeds[::-1]]), np.stack([qualities, qualities[::-1]]), target)
    np.testing.assert_allclose(many, [one, one], rtol=1e-9)


def test_interpolation_is_linear_in_the_logarithm_of_speed() -> None:
    speeds, qualities = np.array([4.0, 1.0, 2.0]), np.array([20.0, 60.0, 50.0])
    assert at_speedup(speeds, qualities, 2.0) == 50.0
    assert at_speedup(speeds, qualities, math.sqrt(8)) == pytest.approx(35.0)
    assert at_speedup(np.array([2.0, 2.0]), np.array([40.0, 50.0]), 2.0) == 45.0


def curve(name: str, kind: str, quality: float, noise: np.ndarray) -> Curve:
    requests = noise.size
    return Curve(
        name=name,
        kind=kind,
        plain_R=np.full(requests, 100.0),
        work_PR=np.repeat([[60.0], [30.0]], requests, axis=1),
        quality_PR=np.stack([quality + 10 + noise, quality + noise]),
    )


def test_margins_are_paired_so_shared_luck_does_not_blur_them() -> None:
    luck = np.random.default_rng(0).normal(scale=8, size=24)
    cells = compare_at(
        [
            curve("ours", "gated", 40, luck),
            curve("fewer", "fewer-steps", 39, luck),
            curve("rival", "interval", 41, luck),
        ],
        (2.0, 9.0),
    )
    first, far = cells[0], cells[3]
    assert first["margins"]["fewer"]["verdict"] == "ahead"
    assert first["margins"]["rival"]["verdict"] == "behind"
    assert first["margins"]["fewer"]["value"] == pytest.approx(1.0)
    assert first["quality"]["high"] - first["quality"]["low"] > 3  # the luck is in the value, not in the margin
    assert far["quality"] is None and far["margins"] == {}


def test_unpaired_luck_makes_an_even_cell() -> None:
    rng = np.random.default_rng(1)
    ours = curve("ours", "gated", 40.3, rng.normal(scale=8, size=24))
    fewer = curve("fewer", "fewer-steps", 40, rng.normal(scale=8, size=24))
    assert compare_at([ours, fewer], (2.5,))[0]["margins"]["fewer"]["verdict"] == "even"


def test_one_point_stands_for_each_curve_near_the_target() -> None:
    speedups = {"a1": 2.0, "a2": 2.6, "b1": 6.0, "c1": 1.8}
    curves = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
    assert nearest_of_each(speedups, curves, 2.5) == ["a2", "c1"]
