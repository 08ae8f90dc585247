"""What is remembered of HorNet."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import picture_batch
from ..remember import case, filled_model, given

case("hornet", "the toy, with global filters")(lambda: given("hornet"))
case("hornet", "convolutions alone")(lambda: given("hornet", global_filters=False, orders=(1, 4, 3)))


@case("hornet", "global filters resized to another picture")
@torch.no_grad()
def resized() -> Tensor:
    return filled_model("hornet")(picture_batch(64, 80).double())  # 2 to 3 would not tell how corners are aligned
