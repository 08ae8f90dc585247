"""Distances between point clouds, and between two sets of them: what generators of shapes are measured by.

Source: Achlioptas et al., "Learning Representations and Generative Models for 3D Point Clouds", ICML 2018,
arXiv:1707.02392 (coverage, distances); Yang et al., "PointFlow", ICCV 2019, arXiv:1906.12320 (1-NNA).
Legend: R made clouds, S reference clouds, N M points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...errors import MeasurementError
from ...registry import Registry

Distance = Callable[[np.ndarray, np.ndarray], float]

DISTANCES: Registry[Distance] = Registry("distance of point clouds")


@DISTANCES.register("chamfer")
def chamfer(one_N3: np.ndarray, other_M3: np.ndarray) -> float:
    """Mean squared distance of a point to the nearest of the other cloud, both ways added."""
    squares = _squares(one_N3, other_M3)
    return float(squares.min(1).mean() + squares.min(0).mean())


@DISTANCES.register("emd")
def earth_movers(one_N3: np.ndarray, other_N3: np.ndarray) -> float:
    """Mean distance that points of one cloud have to be moved to become the other, each point one target; exact.

    Raises: MeasurementError where the clouds have not the same number of points.
    """
    from scipy.optimize import linear_sum_assignment

    if len(one_N3) != len(other_N3):
        raise MeasurementError(
            f"the earth mover's distance pairs points one to one: {len(one_N3)} and {len(other_N3)} do not pair"
        )
    lengths = np.sqrt(_squares(one_N3, other_N3))
    rows, columns = linear_sum_assignment(lengths)
    return float(lengths[rows, columns].mean())


def distances(made: Sequence[np.ndarray], reference: Sequence[np.ndarray], distance: str = "chamfer") -> np.ndarray:
    """Every made cloud against every reference cloud, (R, S). Raises: UnknownNameError for no such distance."""
    measure = DISTANCES[distance]
    return np.array([[measure(one, other) for other in reference] for one in made])


def nearest_neighbour_accuracy(
    made: Sequence[np.ndarray], reference: Sequence[np.ndarray], distance: str = "chamfer"
) -> float:
    """1-NNA: how often the nearest other cloud is of the same set, all clouds of both sets asked.

    0.5 where the sets cannot be told apart, 1 where they can always, 0 where each cloud has its copy in the other.

    Raises: MeasurementError unless both sets have the same size, at least 2.
    """
    if len(made) != len(reference) or len(made) < 2:
        raise MeasurementError(
            f"{len(made)} made and {len(reference)} reference clouds: 1-NNA takes as many of each, at least 2"
        )
    return accuracy_of(*_three(made, reference, distance))


def accuracy_of(within_made: np.ndarray, within_reference: np.ndarray, across: np.ndarray) -> float:
    """1-NNA from distances within the made (R, R), within the reference (S, S) and across (R, S)."""
    whole = np.block([[within_made, across], [across.T, within_reference]]).astype(np.float64)
    np.fill_diagonal(whole, np.inf)
    of_made = np.arange(len(whole)) < len(across)
    return float((of_made[whole.argmin(1)] == of_made).mean())


def coverage(made: Sequence[np.ndarray], reference: Sequence[np.ndarray], distance: str = "chamfer") -> float:
    """COV: share of the reference clouds that are the nearest one to some made cloud.

    Raises: MeasurementError where a set is empty.
    """
    if not len(made) or not len(reference):
        raise MeasurementError("coverage needs at least one made and one reference cloud")
    return coverage_of(distances(made, reference, distance))


def coverage_of(across: np.ndarray) -> float:
    """COV from distances of made to reference clouds (R, S)."""
    return len(np.unique(across.argmin(1))) / across.shape[1]


def set_scores(
    made: Sequence[np.ndarray], reference: Sequence[np.ndarray], distance: str = "chamfer"
) -> dict[str, float]:
    """1-NNA and COV of the made clouds, each pair measured once."""
    within_made, within_reference, across = _three(made, reference, distance)
    return {"1-nna": accuracy_of(within_made, within_reference, across), "cov": coverage_of(across)}


def _three(
    made: Sequence[np.ndarray], reference: Sequence[np.ndarray], distance: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _within(made, distance), _within(reference, distance), distances(made, reference, distance)


def _within(clouds: Sequence[np.ndarray], distance: str) -> np.ndarray:
    measure, found = DISTANCES[distance], np.zeros((len(clouds), len(clouds)))
    for i, one in enumerate(clouds):
        for j in range(i):
            found[i, j] = found[j, i] = measure(one, clouds[j])
    return found


def _squares(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise MeasurementError(f"clouds of shapes {list(a.shape)} and {list(b.shape)}: expected (points, 3) each")
    return cdist(a, b, "sqeuclidean")
