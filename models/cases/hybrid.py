"""What is remembered of the hybrid model."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers.mixers import MIXERS
from ..numbers import whole_numbers
from ..remember import case, filled_model, given

case("hybrid", "the toy: every mixer and full attention")(lambda: given("hybrid"))


@case("hybrid", "every mixer alone, over more tokens than a chunk")
@torch.no_grad()
def alone() -> list[Tensor]:
    tokens = whole_numbers((2, 150), 32, 1)
    return [filled_model("hybrid", layer_types=(kind,))(tokens) for kind in MIXERS]


@case("hybrid", "forget gates with lower bounds, at once and in pieces")
@torch.no_grad()
def bounded() -> list[object]:
    model = filled_model("hybrid", layer_types=("hgrn", "full", "hgrn2", "hgrn"), lower_bounds=True)
    tokens = whole_numbers((2, 9), 32)
    first, state = model.step(tokens[:, :5], None)
    return [model(tokens), first, model.step(tokens[:, 5:], state)[0], [one for one in model.lowest() if one]]


@case("hybrid", "read in pieces, and what is kept")
@torch.no_grad()
def pieces() -> list[object]:
    model, tokens, state, made = filled_model("hybrid"), whole_numbers((2, 9), 32), None, []
    for part in tokens.split(4, 1):
        logits, state = model.step(part, state)
        made += [logits, state]
    return made


@case("hybrid", "what it writes")
def written() -> Tensor:
    return filled_model("hybrid").generate(whole_numbers((2, 5), 32), 7).double()
