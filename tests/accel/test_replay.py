"""Correcting latents after forecasts: closer to the plain pipeline, by itself for every sample, and off in doubt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from closeness import assert_same_but_rounding
from decisions import computed_by_sample, mixed_calls
from diffusers import (
    DDIMScheduler,
    DDPMParallelScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)
from tiny import TinyPipeline
from toy import ToyPipeline, starts, toy_family

from outpace.accel import GatedTaylor, IntervalTaylor, ScheduledTaylor, accelerate
from outpace.accel.estimate.traffic import Traffic
from outpace.accel.forecast.entries import Entry
from outpace.accel.forecast.errors import Measured
from outpace.accel.forecast.gains import LEAST_MOVE, bounded_gain, ending_gain
from outpace.accel.forecast.replay import Replay
from outpace.accel.levels import SPACES
from outpace.accel.methods.scheduled_taylor import SchedulePolicy
from outpace.accel.prediction import KINDS, Prediction

__all__ = ["toy_family"]

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 1.0}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "Euler": lambda: FlowMatchEulerDiscreteScheduler(),
    "Heun": lambda: FlowMatchHeunDiscreteScheduler(),
    "DDIM": lambda: DDIMScheduler(timestep_spacing="trailing"),
    "DPM++ on a flow": lambda: DPMSolverMultistepScheduler(**FLOW),
    "UniPC on a flow": lambda: UniPCMultistepScheduler(**FLOW),
    "DPM++": lambda: DPMSolverMultistepScheduler(),
    "UniPC": lambda: UniPCMultistepScheduler(),
    "PNDM": lambda: PNDMScheduler(),
    "PNDM without Runge-Kutta": lambda: PNDMScheduler(skip_prk_steps=True),
}
every_scheduler = pytest.mark.parametrize("name", list(SCHEDULERS))


def interval(correct: bool) -> IntervalTaylor:
    """Every run of forecasts ends in a computed step, without which nothing is replayed."""
    return IntervalTaylor(interval=3, order=1, warmup=4, cooldown=1, correct=correct)


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "PNDM"])  # gains on dit, not on the toy
@pytest.mark.usefixtures("toy_family")
def test_corrected_is_closer_to_plain_on_a_known_solution(name: str) -> None:
    pipe, x = ToyPipeline(SCHEDULERS[name]()), starts(64)
    plain = pipe(x)
    errors = []
    for correct in (False, True):
        with accelerate(pipe, interval(correct)) as run:
            errors.append(float((pipe(x) - plain).square().mean().sqrt()))
        assert not run.trace.warnings
        assert run.trace.totals()["forecast"] > 0.4 * run.trace.totals()["samples"]
    assert errors[1] < 0.95 * errors[0]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.usefixtures("toy_family")
def test_single_forecasts_are_spared_after_a_runge_kutta_start(skip: bool) -> None:
    pipe, x = ToyPipeline(PNDMScheduler(skip_prk_steps=skip)), starts(4)
    made: dict[tuple[int, bool], torch.Tensor] = {}
    for every in (2, 3):
        for correct in (False, True):
            with accelerate(pipe, IntervalTaylor(interval=every, order=1, correct=correct)) as run:
                made[every, correct] = pipe(x)
            assert run.trace.totals()["forecast"]
    assert torch.equal(made[2, True], made[2, False]) != skip
    assert not torch.allclose(made[3, True], made[3, False], atol=1e-5)


@every_scheduler
@pytest.mark.usefixtures("toy_family")
def test_a_corrected_sample_never_depends_on_its_batch(name: str) -> None:
    """The samples' scales differ, so the gate decides them differently and each is corrected over its own steps."""
    pipe = ToyPipeline(SCHEDULERS[name]())
    x = starts(4) * torch.tensor([0.1, 0.5, 1.0, 3.0]).view(4, 1, 1)
    together, threshold = None, 0.02
    while together is None and threshold < 10.0:
        threshold *= 1.3
        with accelerate(pipe, GatedTaylor(threshold=threshold, correct=True)) as run:
            out = pipe(x, steps=30)
        together = out if mixed_calls(run.trace) > 2 else None
    assert together is not None
    decided = computed_by_sample(run.trace)
    assert len({tuple(d) for d in decided}) > 1
    with accelerate(pipe, GatedTaylor(threshold=threshold, correct=True)) as run:
        for i in range(4):
            run.trace.clear()
            alone = pipe(x[i : i + 1], steps=30)
            assert computed_by_sample(run.trace) == [decided[i]]
            assert_same_but_rounding(together[i], alone[0])


@every_scheduler
@pytest.mark.usefixtures("toy_family")
def test_samples_that_share_their_steps_have_orders_and_degrees_of_their_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corrected together, each as it is alone."""
    own: list[tuple[float, float]] = []
    inner = SchedulePolicy.observe

    def observed(self: SchedulePolicy, measured: Measured) -> None:
        inner(self, measured)
        own.append((self.order, self.degree))

    monkeypatch.setattr(SchedulePolicy, "observe", observed)
    pipe, x = ToyPipeline(SCHEDULERS[name]()), starts(4) * torch.tensor([0.1, 0.5, 1.0, 3.0]).view(4, 1, 1)
    with accelerate(pipe, ScheduledTaylor(speedup=3.0, early=1.2)) as run:
        together = pipe(x, steps=24)
        assert mixed_calls(run.trace) == 0 and not any("not corrected" in note for note in run.trace.warnings)
        assert max(len(set(own[i : i + 4])) for i in range(0, len(own), 4)) >= 3, "at some step they differ"
        for i in range(4):
            assert_same_but_rounding(together[i], pipe(x[i : i + 1], steps=24)[0])


@pytest.mark.usefixtures("toy_family")
def test_what_corrections_ask_of_a_device_does_not_grow_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that share their computed steps are worked on together."""
    inner, seen = Replay.correct, Traffic()

    def counted(self: Replay, *args: Any, **kwargs: Any) -> Any:
        with seen:
            return inner(self, *args, **kwargs)

    monkeypatch.setattr(Replay, "correct", counted)
    for method in (ScheduledTaylor(speedup=3.0, early=1.2), interval(correct=True)):
        asked = []
        for count in (1, 8):
            seen, pipe = Traffic(), ToyPipeline(DDIMScheduler(timestep_spacing="trailing"))
            with accelerate(pipe, method) as run:
                pipe(starts(count), steps=24)
            assert run.trace.totals()["forecast"] > 0.4 * run.trace.totals()["samples"]
            asked.append((seen.kernels, len(seen.waits)))
        (one, waits), (eight, more) = asked
        assert 100 < one <= eight <= 1.3 * one and more == waits, asked


@every_scheduler
@pytest.mark.usefixtures("toy_family")
def test_the_scheduler_ends_as_after_a_plain_run(name: str) -> None:
    pipe, x = ToyPipeline(SCHEDULERS[name]()), starts(2)

    def state() -> dict[str, Any]:
        def shape(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                # A schedule is the same number by number; what is remembered of latents only has their shape.
                return tuple(value.shape) if value.ndim > 1 else value.tolist()
            if isinstance(value, np.ndarray):
                return value.tolist()
            return [shape(v) for v in value] if isinstance(value, list) else value

        return {k: shape(v) for k, v in pipe.scheduler.__dict__.items() if not callable(v)}

    pipe(x)
    plain = state()
    with accelerate(pipe, interval(correct=True)):
        pipe(x)
        assert {k: v for k, v in state().items() if k in plain} == plain
    assert state() == plain
    again = pipe(x)
    assert torch.equal(again, ToyPipeline(SCHEDULERS[name]())(x)), "nothing of the run before remains"


@every_scheduler
@pytest.mark.usefixtures("toy_family")
def test_nothing_skipped_is_bit_identical_though_every_step_is_watched(name: str) -> None:
    pipe, x = ToyPipeline(SCHEDULERS[name]()), starts(3)
    plain = pipe(x)
    with accelerate(pipe, IntervalTaylor(interval=1, correct=True)) as run:
        assert torch.equal(pipe(x), plain)
    assert run.trace.totals()["forecast"] == 0


def test_off_where_the_pipeline_changes_the_latents() -> None:
    """As inpainting does, which puts the known part back after every step."""

    def inpaint(step: int, latents: torch.Tensor) -> torch.Tensor:
        return torch.cat([latents[:, :8], torch.full_like(latents[:, 8:], 0.25)], dim=1)

    outputs = []
    for correct in (False, True):
        pipe = TinyPipeline("FluxTransformer2DModel")
        with accelerate(pipe, interval(correct)) as run:
            outputs.append(pipe([0, 1], steps=12, callback=inpaint))
    assert any("changes the latents between steps" in w for w in run.trace.warnings)
    assert torch.equal(*outputs)


@pytest.mark.usefixtures("toy_family")
def test_off_where_noise_is_added() -> None:
    for scheduler, step in (
        (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), {}),
        (DDIMScheduler(timestep_spacing="trailing"), {"eta": 0.5}),
        (SASolverScheduler(), {}),
        (DDPMParallelScheduler(), {}),
    ):
        outputs = []
        for correct in (False, True):
            pipe = ToyPipeline(scheduler)
            torch.manual_seed(0)
            with accelerate(pipe, interval(correct)) as run:
                outputs.append(pipe(starts(2), **step))
        assert any("adds noise" in w for w in run.trace.warnings)
        assert torch.equal(*outputs)


@pytest.mark.usefixtures("toy_family")
def test_off_where_the_scheduler_steps_another_batch() -> None:
    class Merged(ToyPipeline):
        """Asks for two samples and steps their mean."""

        def __call__(self, latents: torch.Tensor, steps: int = 24, **step: Any) -> torch.Tensor:
            self.scheduler.set_timesteps(steps)
            for t in self.scheduler.timesteps:
                output = self.transformer(torch.cat([latents, 1.1 * latents]), t)
                latents = self.scheduler.step(output.mean(0, keepdim=True), t, latents, return_dict=False)[0]
            return latents

    pipe = Merged(FlowMatchEulerDiscreteScheduler())
    outputs = []
    for correct in (False, True):
        with accelerate(pipe, interval(correct)) as run:
            outputs.append(pipe(starts(1)))
    assert any("another batch" in w for w in run.trace.warnings)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("guidance", ["batched", "separate"])
def test_guided_runs_are_corrected_too(guidance: str) -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    call = {"steps": 16, "guidance": guidance}
    plain = pipe([0, 1], **call)
    errors = []
    for correct in (False, True):
        with accelerate(pipe, interval(correct)) as run:
            errors.append(float((pipe([0, 1], **call) - plain).square().mean().sqrt()))
        assert not run.trace.warnings
    assert errors[1] != errors[0], "it acted"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", sorted(set(SPACES.values())))
@pytest.mark.parametrize("gain", [0.02, 0.3, 0.6])
def test_a_gain_is_carried_as_a_wiener_filter_of_one_variance_has_it(kind: str, space: str, gain: float) -> None:
    prediction, measured = Prediction(kind, space), torch.tensor(gain)
    known = measured.clamp_max(prediction.largest_gain(0.5))
    assert float(prediction.carried(known, 0.5, 0.5)) == pytest.approx(float(known), rel=1e-4)
    there = prediction.carried(known, 0.5, 0.3)
    if float(there) < prediction.largest_gain(0.3):
        assert float(prediction.carried(there, 0.3, 0.5)) == pytest.approx(float(known), rel=1e-3), "and back"
    assert float(known) <= float(there) * 1.0001, "the less noise, the further a picture moves with its latents"
    for u in (0.0, 1.0):
        assert 0.0 <= float(prediction.carried(known, 0.5, u)) <= 1.0001 * prediction.largest_gain(u)


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_the_output_that_ends_a_run_moves_as_far_as_that_step_shows(spread: float) -> None:
    """Pictures of another variance than theory's: what is measured at the step is nearer to the truth than theory."""
    prediction = Prediction("epsilon", "preserving")
    make = torch.Generator().manual_seed(0)

    def truth(u: float) -> float:
        alpha, sigma = prediction.scales(u)
        return alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)

    def entry(step: int, u: float) -> Entry:
        seen = torch.randn(2, 4, 8, 8, generator=make)
        return Entry(step, u, [True, True], seen, truth(u) * seen, seen, {})

    done, now, theory = [entry(1, 0.32), entry(0, 0.34)], entry(2, 0.3), prediction.gain(0.3)
    bounded = min(max(truth(0.3), LEAST_MOVE * theory), theory)
    for gain, expected in ((ending_gain, truth(0.3)), (bounded_gain, bounded)):
        found = torch.as_tensor(gain(prediction, now, done))
        assert found.shape == (2, 1, 1, 1)
        assert float((found - expected).abs().max()) < 0.2 * abs(theory - truth(0.3))
        assert gain(prediction, now, []) == theory, "nothing to measure from"
