"""Gates and attention in a recurrent highway network, each switched off in turn, on Lorenz 96."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..chaos import lorenz96, runge_kutta, trajectory, valid_steps
from ..rhn import Rhn, RhnConfig
from .fit import fit
from .trial import Trial

VARIABLES, SAMPLES, STEPS, WARM_UP, HORIZON, STARTS = 8, 4000, 400, 16, 80, 64


@functools.cache
def series() -> tuple[Tensor, Tensor]:
    """(training, held-out) states of one run, 0.05 apart, in spreads from their mean."""
    start = 8 + torch.randn(VARIABLES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    run = trajectory(runge_kutta(lorenz96, 0.0125), start, 200 + SAMPLES, every=4)[200:]
    run = ((run - run.mean()) / run.std()).float()
    return run[: SAMPLES * 3 // 4], run[SAMPLES * 3 // 4 :]


def arm(*, gating: str, remembered: int, width: int) -> Callable[[int], float]:
    """How long the forecasts of a network hold, on the mean of held-out starts."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        train, held = series()
        model = Rhn(RhnConfig(variables=VARIABLES, width=width, gating=gating, remembered=remembered))
        generator = torch.Generator().manual_seed(seed)

        def error(_step: int) -> Tensor:
            starts = torch.randint(len(train) - WARM_UP - 1, (32,), generator=generator)
            piece = train[starts[:, None] + torch.arange(WARM_UP + 1)]
            return (model(piece[:, :-1]) - piece[:, 1:]).square().mean()

        fit(model, error, steps=STEPS, rate=1e-2)
        places = torch.linspace(0, len(held) - WARM_UP - HORIZON - 1, STARTS).long()
        with torch.no_grad():
            said = model.forecast(held[places[:, None] + torch.arange(WARM_UP)], HORIZON)
        true = held[places[:, None] + WARM_UP + torch.arange(HORIZON)]
        valid = valid_steps(said.transpose(0, 1), true.transpose(0, 1), torch.ones(VARIABLES))
        return 0.05 * float(valid.float().mean())

    return run


TRIAL = Trial(
    claim="gates and attention together make a highway network forecast Lorenz 96 for longer than neither does",
    measure="units of time before the error passes half a spread",
    higher_is_better=True,
    arms={
        "gates and attention": arm(gating="coupled", remembered=8, width=38),
        "gates": arm(gating="coupled", remembered=0, width=53),
        "attention": arm(gating="none", remembered=8, width=44),
        "neither": arm(gating="none", remembered=0, width=75),
    },
    against=("neither",),
    task=f"Lorenz 96 of {VARIABLES} variables, depth 2, 12,468 to 12,728 parameters, {STEPS} steps of 32 pieces of "
    f"{WARM_UP}",
)
