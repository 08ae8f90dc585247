"""The rivals written from their papers: exact where the papers say so, and as scheduled there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from outpace.errors import MeasurementError, UnsupportedModelError
from outpace.evaluation.peers import PEERS, intercept
from outpace.evaluation.peers.easy_cache import EasyCache
from outpace.evaluation.peers.intercept import Call, Moment
from outpace.evaluation.peers.spectrum import Spectrum, ridge_forecast
from outpace.evaluation.peers.tea_cache import TeaCache, Watching

STEPS = 50


def call(step: int, hidden: torch.Tensor, branch: int = 0) -> Call:
    return Call(step=step, branch=branch, hidden=hidden)


def played(rule: object, features: torch.Tensor, inputs: torch.Tensor | None = None) -> dict[int, torch.Tensor]:
    """Run `rule` over the features of all steps; what it gave at those that it did not compute."""
    given = {}
    for step, feature in enumerate(features):
        now = call(step, feature if inputs is None else inputs[step])
        if rule.computes(now):  # type: ignore[attr-defined]
            rule.keep(now, feature)  # type: ignore[attr-defined]
        else:
            given[step] = rule.replaces(now)  # type: ignore[attr-defined]
    return given


def polynomial(degree: int, steps: int = STEPS) -> torch.Tensor:
    at = torch.linspace(-1, 1, steps, dtype=torch.float64)
    weights = torch.randn(degree + 1, 3, generator=torch.Generator().manual_seed(degree), dtype=torch.float64)
    return torch.stack([at**power for power in range(degree + 1)], -1) @ weights


@pytest.mark.parametrize("degree", [0, 1, 2, 4])
def test_spectrum_without_a_ridge_forecasts_a_polynomial_of_its_degree_exactly(degree: int) -> None:
    features = polynomial(degree)
    anchors = [0, 1, 2, 3, 4, 6, 8, 11]
    for at in (12.0, 20.0):
        made = ridge_forecast([float(a) for a in anchors], features[anchors], at, of=49.0, ridge=0.0)
        torch.testing.assert_close(made, features[int(at)], rtol=1e-7, atol=1e-9)


def test_a_degree_too_many_is_not_forecast_exactly() -> None:
    features, anchors = polynomial(6), [0, 1, 2, 3, 4, 6, 8, 11]
    made = ridge_forecast([float(a) for a in anchors], features[anchors], 30.0, of=49.0, ridge=0.0)
    assert float((made - features[30]).abs().max()) > 0.1


def test_spectrum_is_the_published_ridge_regression() -> None:
    """Against the normal equations with Chebyshev polynomials from their cosines, in float64."""
    anchors, at, of = [0, 1, 2, 3, 4, 6, 8], 9.0, 50.0
    features = torch.randn(len(anchors), 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = np.arccos(np.array([*anchors, at]) * 2 / of - 1)
    design = np.cos(np.arange(5)[None, :] * scaled[:, None])
    known, wanted = design[:-1], design[-1]
    coefficients = np.linalg.solve(known.T @ known + 0.1 * np.eye(5), known.T @ features.numpy())
    made = ridge_forecast([float(a) for a in anchors], features, at, of=of)
    np.testing.assert_allclose(made.numpy(), wanted @ coefficients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("growth", "computed"), [(0.0, 27), (0.75, 14), (3.0, 10)])
def test_spectrum_computes_as_many_steps_as_published(growth: float, computed: int) -> None:
    """Of 50: 14 for a growth of 0.75, its table for FLUX.1."""
    rule = Spectrum(steps=STEPS, window=2.0, growth=growth)
    assert STEPS - len(played(rule, torch.zeros(STEPS, 2))) == computed


def test_half_a_line_is_exact_on_a_line_and_the_branches_are_forecast_apart() -> None:
    rule = Spectrum(steps=STEPS, window=2.0, growth=0.0, share=0.0)
    line = torch.arange(STEPS, dtype=torch.float64)[:, None] * torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    for step in range(STEPS):
        calls = [call(step, line[step]), call(step, 3 * line[step], branch=1)]
        computed = [rule.computes(each) for each in calls]
        assert computed[0] == computed[1]
        for factor, each in zip((1, 3), calls, strict=True):
            if computed[0]:
                rule.keep(each, factor * line[step])
            else:
                torch.testing.assert_close(rule.replaces(each), factor * line[step])


def test_easycache_reuses_identical_inputs_for_ever_and_gives_their_output() -> None:
    inputs = torch.randn(1, 8, generator=torch.Generator().manual_seed(1)).expand(STEPS, 8)
    features = inputs * 0.5 + 1
    given = played(EasyCache(steps=STEPS, threshold=1e-9, warmup=10), features, inputs)
    assert sorted(given) == list(range(10, STEPS - 1))
    for step, made in given.items():
        torch.testing.assert_close(made, features[step])


def test_easycache_adds_up_expected_changes_as_published() -> None:
    """Input and output move evenly: k is their ratio, and a reuse lasts until k |dx| n / |v| reaches the threshold."""
    moving = torch.arange(STEPS, dtype=torch.float64)[:, None].expand(STEPS, 4)
    inputs, features = 100 + moving, 50 + 0.5 * moving
    threshold, warmup = 0.025, 10
    expected, total, size = [], 0.0, float(features[warmup - 1].mean())
    for step in range(warmup, STEPS - 1):
        total += 0.5 * 1.0 / size
        if total < threshold:
            expected.append(step)
        else:
            total, size = 0.0, float(features[step].mean())
    given = played(EasyCache(steps=STEPS, threshold=threshold, warmup=warmup), features, inputs)
    assert sorted(given) == expected and 10 < len(expected) < 36
    for step, made in given.items():  # what was added to the input at the last computed step is added again
        last = max(s for s in range(step) if s not in given)
        torch.testing.assert_close(made, inputs[step] + features[last] - inputs[last])


def test_easycache_refuses_an_output_of_another_shape() -> None:
    with pytest.raises(UnsupportedModelError, match="output of the input's shape"):
        EasyCache(steps=4, threshold=0.1, warmup=2).keep(call(0, torch.zeros(4)), torch.zeros(8))


def test_teacache_accumulates_rescaled_changes_until_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outpace.evaluation.peers.tea_cache.signal", lambda call: call.hidden)
    inputs = 2.0 ** torch.arange(12, dtype=torch.float64)[:, None]  # doubles: a relative change of 1
    rule = TeaCache(steps=12, threshold=3.5, coefficients=[0.0, 0.0, 0.0, 1.0, 0.0])
    given = played(rule, inputs + 7, inputs)
    assert sorted(given) == [1, 2, 3, 5, 6, 7, 9, 10]  # the first and the last are computed, and every fourth
    assert all(torch.equal(made, inputs[step] + 7) for step, made in given.items())
    watched = Watching()
    assert played(watched, inputs + 7, inputs) == {}
    assert [moved for moved, _ in watched.pairs] == [1.0] * 11
    with pytest.raises(MeasurementError):
        watched.replaces(call(0, inputs[0]))


def test_steps_and_branches_are_told_by_the_timesteps() -> None:
    moment, seen = Moment(), []
    for timestep in (900, 900, 800.0, torch.tensor([800.0, 800.0]), 700):
        moment.begin(timestep)
        seen.append((moment.step, moment.branch))
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_a_denoiser_without_described_blocks_is_refused(tiny_pipe: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_pipe, "transformer", nn.Linear(1, 1), raising=False)
    monkeypatch.setattr(intercept, "library_of", lambda pipe: __import__("diffusers"))
    with pytest.raises(UnsupportedModelError, match="the blocks of Linear"):
        intercept.described_blocks(tiny_pipe)


def test_every_one_is_registered_at_several_settings() -> None:
    assert all(len(PEERS[name].settings) >= 4 for name in ("spectrum", "spectrum-mixed", "easycache", "teacache"))
