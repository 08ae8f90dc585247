"""Linear regression from sums of products, so that tokens need not be held."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...kernels.precision import widened, widest

RIDGE = 1e-3
"""Relative to the mean square of what is regressed on."""


class Regression:
    """The affine function of x that is nearest to y in squares, with a ridge on its matrix and none on its bias.

    Args:
        inputs: of x, I.
        outputs: of y, O.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.inputs = inputs
        self.products = torch.zeros(inputs + 1, inputs + 1 + outputs, dtype=widest(torch.device("cpu")))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take tokens x (..., I) and what is wanted of them, y (..., O), into account."""
        x, y = (widened(part.flatten(0, -2)) for part in (x, y))
        h = torch.cat([x, x.new_ones(len(x), 1)], 1)
        self.products += (h.T @ torch.cat([h, y], 1)).cpu()

    def solve(self, linear: nn.Linear) -> None:
        """Put the matrix and the bias into a layer."""
        gram, right = self.products.tensor_split([self.inputs + 1], dim=1)
        ridge = RIDGE * gram.diagonal()[:-1].mean() * torch.eye(len(gram), dtype=gram.dtype)
        ridge[-1, -1] = 0
        made = torch.linalg.solve(gram + ridge, right)
        linear.weight.copy_(made[:-1].T)
        linear.bias.copy_(made[-1])
