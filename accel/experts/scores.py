"""A router's product, in float32 whatever the model computes in: rounded scores tie, and ties choose by accident."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional

ROUTER_DEVIATION = 0.02
"""Of a router's first weights: small, so that every choice is made about equally often."""


def score(x: Tensor, weight: Tensor) -> Tensor:
    """Scores (..., rows of `weight`) of `x` (..., features), in float32."""
    place = x.device.type
    with nullcontext() if place == "meta" else torch.autocast(place, enabled=False):
        return functional.linear(x.float(), weight.float())
