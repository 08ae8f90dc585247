"""What is remembered of GLA."""

from __future__ import annotations

import torch

from ..numbers import whole_numbers
from ..remember import case, filled_model, given

case("gla", "the toy")(lambda: given("gla"))


@case("gla", "over more tokens than a chunk, in pieces")
@torch.no_grad()
def pieces() -> list[object]:
    model, state, made = filled_model("gla"), None, []
    for part in whole_numbers((1, 140), 32).split(90, 1):
        logits, state = model.step(part, state)
        made += [logits, state]
    return made
