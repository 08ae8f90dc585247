"""What is remembered of GAM."""

from __future__ import annotations

import torch

from ..numbers import whole_numbers
from ..remember import case, filled_model, given, thinned

case("gam", "the toy")(lambda: given("gam"))
case("gam", "where it drops in training")(lambda: thinned("gam"))


@case("gam", "every way to join the paths, a wider kernel, in pieces")
@torch.no_grad()
def forms() -> list[object]:
    tokens, made = whole_numbers((2, 10), 32), []
    for fusion in ("gated", "sum", "local", "global"):
        model, state = filled_model("gam", fusion=fusion, kernel=4), None
        for part in tokens.split(4, 1):
            logits, state = model.step(part, state)
            made += [logits, state]
    return made
