"""What is remembered of Raptor and of phases of depth."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import numbers
from ..phases import apart, dynamics, phases, similarity, states
from ..raptor import AS_A_CHAIN, follow
from ..remember import case, filled_model, given

case("raptor", "the toy")(lambda: given("raptor"))
case("raptor", "plain networks, not told the depth")(lambda: given("raptor", gated=False, depth=False))


def seen() -> Tensor:
    """States of six layers that resemble their neighbours."""
    return torch.stack([numbers((2, 9, 8), i) for i in range(6)]).cumsum(0)


@case("raptor", "errors by kind of token, losses of a phase, a few steps of following", near=1e-5)
def losses() -> list[object]:
    model, x = filled_model("raptor"), seen()
    made: list[object] = []
    with torch.no_grad():
        made += [model.error(x[1:], x[:-1]), model.error(x[1:], x[:-1], AS_A_CHAIN), model.run(x[0], 1, 4)]
        made += [model.phase_loss(x, phase, forcing) for phase in (0, 1) for forcing in (0.0, 0.3, 1.0)]
    follow(model, x, steps=6, rate=1e-3, batch=2, seed=1)
    with torch.no_grad():
        return [*made, model(x[0]), filled_model("raptor", class_tokens=0, registers=0).error(x[1:], x[:-1])]


@case("raptor", "how alike layers are, their phases, how they move and what becomes of a disturbance")
@torch.no_grad()
def depth() -> list[object]:
    x = list(seen())
    alike = similarity(x, class_tokens=1, registers=2)
    block = torch.nn.Linear(4, 4, dtype=torch.float64)
    torch.nn.init.eye_(block.weight)
    torch.nn.init.ones_(block.bias)
    with states([block, block]) as watched:
        block(block(numbers((1, 2, 4))))
    cuts = [[[run.start, run.stop] for run in phases(alike, count=count)] for count in (1, 2, 3, 6)]
    by_share = [[[run.start, run.stop] for run in phases(alike, least=least)] for least in (0.02, 0.1, 0.3)]
    return [
        alike, cuts, by_share, dynamics(x, class_tokens=1, registers=1), dynamics(x, class_tokens=0), list(watched),
        apart(x, [part + 0.1 * numbers(part.shape, 7) for part in x]),
    ]  # fmt: skip
