"""Metrics of point clouds: values that are known without them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from outpace.errors import MeasurementError, UnknownNameError
from outpace.evaluation.metrics.point_clouds import (
    DISTANCES,
    chamfer,
    coverage,
    earth_movers,
    nearest_neighbour_accuracy,
    set_scores,
)

every_distance = pytest.mark.parametrize("distance", list(DISTANCES))


def clouds(count: int, seed: int, *, middle: float = 0.0, points: int = 16) -> list[np.ndarray]:
    source = np.random.default_rng(seed)
    return [source.normal(size=(points, 3)) * source.uniform(0.5, 2.0) + middle for _ in range(count)]


def test_distances_by_hand():
    one, other = np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([[0.0, 0, 0], [1, 2, 0]])
    assert chamfer(one, other) == pytest.approx((0 + 1) / 2 + (0 + 4) / 2)
    assert earth_movers(one, other) == pytest.approx((0 + 2) / 2)


def test_earth_movers_is_the_best_of_all_pairings():
    one, other = clouds(2, 0, points=6)
    every = [np.linalg.norm(one - other[list(order)], axis=1).mean() for order in itertools.permutations(range(6))]
    assert earth_movers(one, other) == pytest.approx(min(every))


@every_distance
def test_the_order_of_points_does_not_count(distance: str):
    one, other = clouds(2, 1)
    measure = DISTANCES[distance]
    assert measure(one[::-1], other) == pytest.approx(measure(one, other))
    assert measure(one, one[::-1]) == pytest.approx(0.0)
    assert measure(one, other) == pytest.approx(measure(other, one))


@every_distance
def test_two_samples_of_one_distribution_cannot_be_told_apart(distance: str):
    found = [nearest_neighbour_accuracy(clouds(24, 10 + seed), clouds(24, 20 + seed), distance) for seed in range(4)]
    assert 0.35 < np.mean(found) < 0.65, found


@every_distance
def test_sets_far_apart_are_always_told_apart(distance: str):
    assert nearest_neighbour_accuracy(clouds(8, 2), clouds(8, 3, middle=50.0), distance) == 1.0


@every_distance
def test_copies_are_always_taken_for_the_other_set(distance: str):
    made = clouds(8, 4)
    scores = set_scores(made, [cloud.copy() for cloud in made], distance)
    assert scores == {"1-nna": 0.0, "cov": 1.0}


def test_coverage_counts_what_is_reached():
    reference = clouds(10, 5)
    assert coverage([reference[3]] * 10, reference) == 0.1
    assert 0.2 < coverage(clouds(24, 6), clouds(24, 7)) < 0.95


def test_what_cannot_be_measured_is_said():
    with pytest.raises(MeasurementError, match="do not pair"):
        earth_movers(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(MeasurementError, match="as many of each"):
        nearest_neighbour_accuracy(clouds(3, 0), clouds(2, 0))
    with pytest.raises(MeasurementError, match="at least one"):
        coverage([], clouds(2, 0))
    with pytest.raises(MeasurementError, match=r"expected \(points, 3\)"):
        chamfer(np.zeros(3), np.zeros((4, 3)))
    with pytest.raises(UnknownNameError, match="did you mean 'chamfer'"):
        set_scores(clouds(2, 0), clouds(2, 1), "chamfre")
