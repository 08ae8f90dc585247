"""What is remembered of ViG."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import numbers
from ..remember import case, filled, given
from ..vig import BidirectionalMixer

case("vig", "the toy, hierarchical")(lambda: given("vig"))
case("vig", "plain, with positions and activations")(
    lambda: given("vig", widths=(12,), depths=(2,), heads=(3,), activated=True)
)
case("vig", "plain, without activations")(lambda: given("vig", widths=(8,), depths=(1,), heads=(2,), picture=48))


@case("vig", "a mixer of one direction")
@torch.no_grad()
def one_direction() -> Tensor:
    return filled(BidirectionalMixer(8, 2, activated=True, backward=False))(numbers((2, 8, 5, 6)))
