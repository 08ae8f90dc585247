"""What is remembered of MOAT."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import picture_batch
from ..remember import case, filled_model, given

case("moat", "the toy")(lambda: given("moat"))
case("moat", "no positions")(lambda: given("moat", positions=False))
case("moat", "windows")(lambda: given("moat", window=(2,)))


@case("moat", "tables resized as published")
@torch.no_grad()
def centres() -> list[Tensor]:
    model = filled_model("moat", table_corners=False)
    return [model(picture_batch(*size).double()) for size in ((64, 48), (9, 20))]


@case("moat", "a picture of odd sides, its tables resized")
@torch.no_grad()
def odd() -> Tensor:
    return filled_model("moat")(picture_batch(37, 51).double())
