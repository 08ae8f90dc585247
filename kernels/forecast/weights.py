"""How much each past value counts in a forecast: plain float arithmetic on the coordinates, no tensors.

Both rules are linear in the past values, so a forecast is one weighted sum whatever the rule.
"""

from __future__ import annotations

from collections.abc import Sequence


def lagrange_weights(nodes: Sequence[float], at: float) -> list[float]:
    """Weights of the polynomial through all `nodes`, evaluated at `at`; they sum to 1.

    With m + 1 nodes the forecast reproduces every polynomial of degree m exactly, however the nodes are spaced.
    Equal to Newton's divided differences (`reference.py`), in the form that needs no stored differences.

    Args:
        nodes: coordinates of the past values, all different, in any order.
        at: the coordinate to forecast at.

    >>> lagrange_weights([1.0, 3.0], 4.0)
    [-0.5, 1.5]
    """
    weights = []
    for j, node in enumerate(nodes):
        weight = 1.0
        for i, other in enumerate(nodes):
            if i != j:
                weight *= (at - other) / (node - other)
        weights.append(weight)
    return weights


def taylor_weights(nodes: Sequence[float], at: float) -> list[float]:
    """Weights of the recursion that published Taylor caches use, kept for comparison; biased from order 2 on.

    Source: TaylorSeer (Liu et al., 2025, arXiv:2503.06923, eq. 6) and CG-Taylor (2025, arXiv:2508.02240) as their
    code runs them: F'_0 = h, F'_{i+1} = (F'_i - F_i) / (last gap), forecast = sum_i F_i x^i / i!. The last gap divides
    every difference and backward differences stand for derivatives at the newest node, so only order 1 is exact.

    Args:
        nodes: coordinates of the past values, newest FIRST, all different; the order is len(nodes) - 1.
        at: the coordinate to forecast at.

    >>> taylor_weights([3.0, 1.0], 4.0)
    [1.5, -0.5]
    """

    def derivative(degree: int, newest: int) -> list[float]:
        # Weights of F_degree as it stood when node `newest` was the newest one.
        if degree == 0:
            return [1.0 if j == newest else 0.0 for j in range(len(nodes))]
        gap = nodes[newest] - nodes[newest + 1]
        here, before = derivative(degree - 1, newest), derivative(degree - 1, newest + 1)
        return [(a - b) / gap for a, b in zip(here, before, strict=True)]

    x, factor = at - nodes[0], 1.0
    weights = [0.0] * len(nodes)
    for degree in range(len(nodes)):
        factor = factor * x / degree if degree else 1.0
        weights = [w + factor * d for w, d in zip(weights, derivative(degree, 0), strict=True)]
    return weights
