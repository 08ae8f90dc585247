"""What is remembered of MAXIM."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import picture_batch
from ..remember import case, filled_model, given


@case("maxim", "three stages and scales, every picture")
@torch.no_grad()
def pictures() -> list[list[Tensor]]:
    return filled_model("maxim", stages=3).pictures(picture_batch(64, 128, count=1).double())


case("maxim", "one stage at one scale, channel gates of two units")(
    lambda: given("maxim", features=8, stages=1, scales=1)
)
