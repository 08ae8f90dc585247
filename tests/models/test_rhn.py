"""Chaotic systems have the exponents of the literature, forecasts are held to the truth, switches work, bad input."""

from __future__ import annotations

import pytest
import torch

from outpace.errors import ConfigError, UnknownNameError
from outpace.models.chaos import (
    kuramoto_sivashinsky,
    lorenz96,
    lyapunov_exponent,
    runge_kutta,
    trajectory,
    two_scales,
    valid_steps,
)
from outpace.models.gtrxl import RESIDUAL_GATES
from outpace.models.rhn import GATINGS, Rhn, RhnConfig


def test_steps_until_a_forecast_is_not_valid() -> None:
    true = torch.zeros(4, 2, 3)
    said = true.clone()
    said[2:, 0], said[1, 1, 0], said[3, 1] = 9.0, 0.6, 9.0
    assert valid_steps(said, true, torch.ones(3)).tolist() == [2, 3]
    assert valid_steps(said, true, torch.ones(3), threshold=0.1).tolist() == [2, 1]


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("merge", RESIDUAL_GATES)
def test_every_switch_learns(gating: str, merge: str) -> None:
    model = Rhn(RhnConfig(variables=4, width=5, gating=gating, merge=merge, remembered=3))
    x = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    model(x).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert model.forecast(x, 5).shape == (2, 5, 4)


def test_bad_input_ends_in_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="gating of an RHN must be one of none, coupled, free"):
        RhnConfig(variables=3, gating="shut")
    with pytest.raises(ConfigError, match="variables of RhnConfig must be at least 1"):
        RhnConfig(variables=0)
    with pytest.raises(UnknownNameError, match="residual gate"):
        RhnConfig(variables=3, merge="heighway")
    with pytest.raises(ConfigError, match="even number of points"):
        kuramoto_sivashinsky(7, 22.0, 0.1)
    with pytest.raises(ConfigError, match="positive time"):
        runge_kutta(lorenz96, 0.0)


def test_two_scales_stay_on_their_attractor() -> None:
    start = torch.randn(4 + 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    run = trajectory(runge_kutta(lambda x: two_scales(x, slow=4), 0.005), start, 400)
    assert bool(run.isfinite().all()) and float(run[200:, :4].std()) > 1 > float(run[200:, 4:].std())


@pytest.mark.slow
def test_lyapunov_exponents_are_those_of_the_literature() -> None:
    generator = torch.Generator().manual_seed(0)
    step = runge_kutta(lorenz96, 0.02)
    start = trajectory(step, 8 + torch.randn(40, generator=generator, dtype=torch.float64), 2000)[-1]
    assert lyapunov_exponent(step, start, 0.02, 10_000) == pytest.approx(1.67, abs=0.06)
    step = kuramoto_sivashinsky(64, 22.0, 0.25)
    start = trajectory(step, 0.1 * torch.randn(64, generator=generator, dtype=torch.float64), 2000)[-1]
    assert lyapunov_exponent(step, start, 0.25, 16_000) == pytest.approx(0.045, abs=0.007)
