"""What is remembered of WideNet."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import numbers
from ..remember import case, example_of, filled_model
from ..widenet import route


@case("widenet", "logits and balance: the toy, full experts, shared norms, one expert")
@torch.no_grad()
def forms() -> list[Tensor]:
    made = []
    for changes in ({}, {"capacity": 0.6}, {"own_norms": False, "layers": 3}, {"experts": 1, "active": 1}):
        model = filled_model("widenet", **changes)
        made += [model(*example_of("widenet", model)), model.balance]
    return made


@case("widenet", "who goes where")
def routed() -> list[Tensor]:
    gate, capacity = (3 * numbers((20, 4))).softmax(-1), 0.8
    return [part.double() for part in route(gate, 2, capacity)]
