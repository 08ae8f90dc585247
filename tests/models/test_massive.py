"""Curves of activations: bad input, flat curves, any model's blocks, and a training that is watched."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from outpace.errors import ConfigError
from outpace.models.massive import FORMS, Curve, Place, fit_curve, fit_form, predict_curve, ratios
from outpace.models.trials.massive import probe_steps, watched

torch.set_num_threads(1)


def test_curves_without_a_peak() -> None:
    assert Curve(amplitude=1.0, decay=0.0, scale=1.0, offset=1.0, level=0.0).peak is None
    assert Curve(amplitude=1.0, decay=5.0, scale=1.0, offset=9.0, level=0.0).peak is None  # turned before training


def test_a_flat_line_is_fitted() -> None:
    curve, fit = fit_curve(range(10), [2.5] * 10)
    assert torch.allclose(curve.at(torch.arange(10.0)), torch.tensor(2.5)) and fit.r_squared <= 1


@pytest.mark.parametrize("form", FORMS)
def test_every_form_beats_the_mean_on_a_rise(form: str) -> None:
    rise = [1 - math.exp(-t / 7) for t in range(30)]
    assert fit_form(range(30), rise, form).r_squared > 0.99


def test_bad_input_ends_in_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="a decay of at least 0"):
        Curve(amplitude=1.0, decay=-1.0, scale=1.0, offset=1.0, level=0.0)
    with pytest.raises(ConfigError, match="forms of a curve are"):
        fit_form(range(9), [1.0] * 9, "cubic")
    with pytest.raises(ConfigError, match="at least 6, not 3 and 3"):
        fit_curve(range(3), [1.0] * 3)
    with pytest.raises(ConfigError, match="finite"):
        fit_curve(range(6), [math.nan] * 6)
    with pytest.raises(ConfigError, match="times must grow"):
        fit_curve([0, 1, 1, 2, 3, 4], [1.0] * 6)
    place = Place(layer=0, layers=2, width=8, heads=1, hidden=8)
    with pytest.raises(ConfigError, match="at least 2 others"):
        predict_curve([], place)


def test_hooks_go_when_a_model_fails() -> None:
    block = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), ratios([block]):
        block(torch.zeros(1, 3))
    assert not block._forward_hooks


def test_a_watched_training() -> None:
    steps, layers = watched(0, 7)
    assert steps == probe_steps(7) and len(layers) == 4
    assert all(len(values) == len(steps) and min(values) > 1 for values in layers)
