"""What is remembered of AlgoFormer."""

from __future__ import annotations

import torch
from torch import Tensor

from ..algoformer import descent_loop, newton_loop
from ..numbers import numbers
from ..remember import case, example_of, filled_model, given

case("algoformer", "the toy")(lambda: given("algoformer"))


@case("algoformer", "with the prepared tokens added, more loops, no blocks around, several loops read off")
@torch.no_grad()
def forms() -> list[Tensor]:
    model = filled_model("algoformer", injection="add", looped=2, after=2)
    bare = filled_model("algoformer", before=0, after=0)
    x = example_of("algoformer", model)
    return [model(*x, trained=3), model(*x, loops=5, trained=2), bare(*x, loops=2)]


@case("algoformer", "gradients of the last loops only, and both algorithms")
def gradients() -> list[Tensor]:
    model = filled_model("algoformer")
    made = [model(*example_of("algoformer", model), loops=4, trained=2)]
    made[0].square().sum().backward()
    made += [value.grad for value in model.parameters() if value.grad is not None]
    x, left, matrix = numbers((2, 6, 3)), numbers((2, 6), 1), numbers((3, 3), 2)
    return [*made, descent_loop(x, left, 0.3, examples=4), newton_loop(numbers((3, 3), 3), matrix)]
