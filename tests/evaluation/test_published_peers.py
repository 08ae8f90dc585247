"""The rivals written from their papers: exact where the papers say so, and as scheduled there."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

from outpace.errors import MeasurementError, UnsupportedModelError
from outpace.evaluation.peers import PEERS, intercept
from outpace.evaluation.peers.easy_cache import EasyCache
from outpace.evaluation.peers.intercept import Call, Moment
from outpace.evaluation.peers.mean_cache import (
    PEAK_POWER,
    Trajectory,
    computed_steps,
    edges_of,
    error_of_mean,
    velocities_replaced,
)
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


def trajectory(velocities: torch.Tensor) -> Trajectory:
    """Euler's steps from level 1 to 0 along `velocities`, the final state with them."""
    levels = torch.linspace(1, 0, len(velocities) + 1, dtype=torch.float64).tolist()
    states = [torch.zeros_like(velocities[0])]
    for velocity, now, after in zip(velocities, levels, levels[1:], strict=False):
        states.append(states[-1] + (after - now) * velocity)
    return Trajectory(states=states, levels=levels, velocities=list(velocities))


def test_meancache_reads_the_slope_of_the_mean_velocity() -> None:
    """Where the velocity is a + b level, its mean over an interval of length L differs from its start by b L / 2."""
    steps, rate = 1200, 3.0
    at = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1, None]
    plain = trajectory(2.0 + rate * at)
    torch.testing.assert_close(plain.slope(900, 600), torch.tensor([-rate / 2], dtype=torch.float64), rtol=2e-3, atol=0)
    forecast = plain.velocities[900] - plain.slope(900, 600) * (plain.levels[1200] - plain.levels[900])
    mean = (plain.states[1200] - plain.states[900]) / (plain.levels[1200] - plain.levels[900])
    torch.testing.assert_close(forecast, mean, rtol=2e-3, atol=0)


def test_meancache_takes_the_best_of_all_schedules_and_keeps_to_its_budget() -> None:
    plain = trajectory(torch.randn(8, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64))

    def cost(path: tuple[int, ...]) -> float:
        edges = [(a, b) for a, b in zip(path, [*path[1:], 8], strict=True) if b > a + 1]
        overs = {a: range(1, min(6, a + 1) + 1) for a, _ in edges}
        return sum(min(error_of_mean(plain, a, b, over) for over in overs[a]) ** PEAK_POWER for a, b in edges)

    for budget in (1, 3, 4, 8):
        found = computed_steps(edges_of(plain), 8, budget)
        paths = [(0, *rest) for rest in itertools.combinations(range(1, 8), budget - 1)]
        assert len(found) == budget and cost(tuple(found)) == pytest.approx(min(map(cost, paths)), abs=1e-12)


class Flow(nn.Module):
    """A pipeline of two guidance branches whose velocity is a + b level, guided."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.calls = rate, 0
        self.scheduler = FlowMatchEulerDiscreteScheduler()
        self.transformer = self._modules["denoiser"] = nn.Identity()
        self.transformer.forward = self.velocity

    def velocity(self, hidden_states: torch.Tensor, timestep: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        self.calls += 1
        return (torch.full_like(hidden_states, 0.5 + self.rate * float(timestep) / 1000),)

    def run(self, steps: int) -> torch.Tensor:
        self.calls, state = 0, torch.linspace(-1, 1, 6)[None]
        self.scheduler.set_timesteps(steps)
        for timestep in self.scheduler.timesteps:
            one, other = (
                self.transformer.forward(hidden_states=state, timestep=timestep, return_dict=False)[0] for _ in range(2)
            )
            state = self.scheduler.step(other + 3 * (one - other), timestep, state, return_dict=False)[0]
        return state


def test_meancache_computes_its_share_and_gives_the_plain_picture_of_a_constant_velocity() -> None:
    pipe = Flow(0.0)
    made = pipe.run(12)
    assert pipe.calls == 24
    with velocities_replaced(pipe, None) as plain:
        pipe.run(12)
    assert len(plain.states) == 13 and plain.levels[-1] == 0
    assert torch.equal(plain.states[-1], made)
    needed = PEERS["meancache"].prepare(pipe, 12, lambda: pipe.run(12))
    with PEERS["meancache"].apply(pipe, speedup=3.0, **needed):
        again = pipe.run(12)
    assert pipe.calls == 8
    torch.testing.assert_close(again, made, rtol=1e-5, atol=1e-6)
    assert "step" not in vars(pipe.scheduler) and torch.equal(pipe.run(12), made)


def test_meancache_corrects_left_out_steps_as_published() -> None:
    """Six steps, of which 0, 1 and 4 are computed: by hand, in numpy."""
    pipe, computed = Flow(2.0), {0: 1, 1: 2, 4: 3}
    with velocities_replaced(pipe, computed):
        made = pipe.run(6)
    levels = pipe.scheduler.sigmas.double().numpy()
    plain = 0.5 + 2.0 * levels
    states, velocities = [np.linspace(-1, 1, 6)], []
    for step, (now, after) in enumerate(itertools.pairwise(levels)):
        if step in computed:
            velocity = plain[step]
        else:
            first = step - {2: 2, 3: 2, 5: 3}[step]
            mean = (states[step] - states[first]) / (now - levels[first])
            velocity = velocities[-1] - (velocities[first] - mean) / (now - levels[first]) * (after - now)
        velocities.append(velocity)
        states.append(states[-1] + (after - now) * velocity)
    np.testing.assert_allclose(made[0].numpy(), states[-1], rtol=1e-5, atol=1e-6)


def test_meancache_refuses_a_scheduler_without_velocities(tiny_pipe: Any) -> None:
    with (
        pytest.raises(UnsupportedModelError, match="flow-matching scheduler"),
        velocities_replaced(tiny_pipe, None),
    ):
        pytest.fail("it was accepted")


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
    assert all(
        len(PEERS[name].settings) >= 4 for name in ("spectrum", "spectrum-mixed", "easycache", "teacache", "meancache")
    )
