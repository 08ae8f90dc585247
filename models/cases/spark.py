"""What is remembered of Spark."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import numbers
from ..remember import case, filled, filled_model, given
from ..spark import SparkAttention, SparkConfig

case("spark", "the toy")(lambda: given("spark"))


@case("spark", "attention at once and in pieces, the network unit by unit, its FLOPs")
@torch.no_grad()
def parts() -> list[object]:
    config = SparkConfig(width=16, hidden=24, predictor=6, active=8, heads=2, keys=4)
    attention, network, x = filled(SparkAttention(config)), filled_model("spark"), numbers((2, 11, 16))
    made: list[object] = [attention(x), network.chosen(x), network.gathered(x), network.flops(), attention(x[:, :1])[0]]
    state: tuple[Tensor, Tensor] | None = None
    for part in x.split(4, 1):
        out, state = attention(part, state)
        made.append(out)
    return made
