"""What is remembered of RHN and of chaotic systems."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..chaos import kuramoto_sivashinsky, lorenz96, lyapunov_exponent, runge_kutta, trajectory, two_scales, valid_steps
from ..gtrxl import RESIDUAL_GATES
from ..numbers import numbers
from ..remember import case, filled_model, given

case("rhn", "the toy")(lambda: given("rhn"))


@case("rhn", "every gating and merge, no attention, forecasts")
@torch.no_grad()
def forms() -> list[Tensor]:
    x, made = numbers((2, 6, 3)), []
    for changes in (
        {"gating": "none"}, {"gating": "free", "depth": 3}, {"remembered": 0},
        *({"merge": merge, "remembered": 2} for merge in RESIDUAL_GATES),
    ):  # fmt: skip
        model = filled_model("rhn", **changes)
        made += [model(x), model.forecast(x, 4)]
    return made


@case("rhn", "what opens its gates before it learns")
def biases() -> list[Tensor]:
    from ..rhn import Rhn, RhnConfig

    with torch.random.fork_rng(devices=[]):
        models: list[Any] = [Rhn(RhnConfig(variables=2, width=4, gating=kind)) for kind in ("coupled", "free")]
        return [model.cell[0].bias[4:8] for model in models]


@case("rhn", "derivatives, steps, exponents and how long forecasts are valid")
def chaos() -> list[object]:
    x, y = 3 * numbers((2, 6)), numbers((2, 6 + 24), 1)
    step = runge_kutta(lorenz96, 0.01)
    swift = kuramoto_sivashinsky(16, 12.0, 0.1)
    path = trajectory(step, x, 3, every=2)
    told = torch.stack([path, path + 0.3 * torch.arange(4).double()[:, None, None] * numbers(path.shape, 2)])
    return [
        lorenz96(x), lorenz96(x, forcing=5.0), two_scales(y, slow=6), step(x), path, swift(numbers((3, 16))),
        two_scales(y, slow=6, forcing=3.0, coupling=0.5, spread=4.0, pace=2.0),
        lyapunov_exponent(step, x[0], 0.01, 20), valid_steps(told[1], told[0], torch.ones(6).double()).double(),
        valid_steps(told[1], told[0], 0.5 * torch.ones(6).double(), threshold=0.3).double(),
    ]  # fmt: skip
