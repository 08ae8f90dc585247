"""What is remembered of SVT."""

from __future__ import annotations

import torch
from torch import Tensor

from ..remember import case, example_of, filled_model, given

case("svt", "the toy")(lambda: given("svt"))
case("svt", "mixing over channels alone, both stages scattered, no dense head")(
    lambda: given("svt", token_mixing=False, scattered=2, parts=4, dense=False, depths=(2, 1), picture=32)
)


@case("svt", "logits of the picture and of every place")
@torch.no_grad()
def parts() -> tuple[Tensor, Tensor | None]:
    model = filled_model("svt", scattered=0)
    return model.parts(*example_of("svt", model))
