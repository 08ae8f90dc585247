"""The truth the fast forecast is tested against: Newton's divided differences in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def forecast(values: Sequence[torch.Tensor], nodes: Sequence[float], at: float) -> torch.Tensor:
    """The Newton polynomial through (node, value) pairs, evaluated at `at`, in float64.

    Source: divided differences, e.g. Stoer and Bulirsch, Introduction to Numerical Analysis, section 2.1.3.

    Shapes: every value the same, any; the result likewise.
    """
    table = [value.double() for value in values]
    coefficients = [table[0]]
    for degree in range(1, len(nodes)):
        table = [(table[i + 1] - table[i]) / (nodes[i + degree] - nodes[i]) for i in range(len(table) - 1)]
        coefficients.append(table[0])
    result = coefficients[-1]
    for degree in range(len(nodes) - 2, -1, -1):
        result = result * (at - nodes[degree]) + coefficients[degree]
    return result
