"""ScheduledTaylor: exactly the share that was asked for, every sample by itself, and what it measures is right."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from tiny import BlockCounter, TinyPipeline, noise, texts
from tiny_models import SPECIMENS

from outpace.accel import METHODS, Method, ScheduledTaylor, accelerate, find_family
from outpace.accel.forecast.entries import Entry, mixed_weights
from outpace.accel.forecast.errors import measure, off_scale
from outpace.accel.forecast.history import Anchor, History
from outpace.accel.forecast.partial import Partial, possible
from outpace.accel.methods.scheduled_taylor import DENSEST, SchedulePolicy, places_of
from outpace.accel.prediction import Prediction
from outpace.errors import ConfigError, InputError

FLUX = "FluxTransformer2DModel"

WHOLE = {
    "AuraFlowTransformer2DModel",
    "BriaFiboTransformer2DModel",
    "ChromaTransformer2DModel",
    "Flux2Transformer2DModel",
    "Flux3Transformer2DModel",
    "HiDreamImageTransformer2DModel",
    "LatteTransformer3DModel",
    "WanAnimate2Transformer3DModel",
}
"""No step is divided: their first blocks hold other tokens than the last (text apart, frames folded), or their
pipelines keep keys and values of every block."""


def computed(run: Any, sample: int = 0) -> list[int]:
    """Steps at which a sample was computed in the first branch."""
    branch = run.trace.calls[0].branch
    return [c.step for c in run.trace.calls if c.branch == branch and c.computed[sample]]


@pytest.mark.parametrize("steps", [8, 13, 28, 60])
@pytest.mark.parametrize("speedup", [1.5, 2.0, 3.0, 4.7])
def test_the_share_is_the_nearest_that_whole_steps_allow_in_every_sample(steps: int, speedup: float) -> None:
    pipe = TinyPipeline(FLUX)
    for seeds in ([0], [0, 1, 2, 3]):
        with accelerate(pipe, speedup=speedup) as run:
            pipe(seeds, steps=steps)
        wanted = max(1, round(steps / speedup))
        assert [len(computed(run, sample)) for sample in range(len(seeds))] == [wanted] * len(seeds)
        assert computed(run)[0] == 0, "there is no warm-up"
        off = abs(wanted * speedup / steps - 1.0) > 0.02
        assert any("nearest to" in warning for warning in run.trace.warnings) == off


def share_of(run: Any, sample: int) -> float:
    """Share of its blocks that were computed of a sample, in the first branch."""
    calls = [call for call in run.trace.calls if call.branch == run.trace.calls[0].branch]
    blocks = sum(run.trace.blocks if c.computed[sample] else (c.partial or [0] * 9)[sample] for c in calls)
    return blocks / (len(calls) * run.trace.blocks)


@pytest.mark.parametrize("cls", sorted(SPECIMENS))
def test_every_family_computes_what_was_asked_for(cls: str) -> None:
    """10 steps at 3x are 3 and a third: with whole steps 3, exactly 3 and a third of the blocks of another."""
    pipe = TinyPipeline(cls)
    with accelerate(pipe, ScheduledTaylor(speedup=3.0, exact=True)) as run:
        pipe([0, 1], steps=10)
    blocks, samples = run.trace.blocks, range(len(run.trace.calls[0].computed))
    whole = any("whole steps allow" in warning for warning in run.trace.warnings)
    part = 0 if whole else round(blocks * (10 / 3.0)) - 3 * blocks
    assert {round(share_of(run, sample) * 10 * blocks) for sample in samples} == {3 * blocks + part}
    assert run.trace.totals()["blocks"] == pytest.approx(
        sum(share_of(run, sample) for sample in samples) * 10 * blocks * len({c.branch for c in run.trace.calls})
    )
    assert whole is (cls in WHOLE)


@pytest.mark.parametrize(("steps", "speedup"), [(8, 3.0), (9, 1.3), (13, 4.7), (20, 3.0), (28, 1.3), (60, 4.7)])
def test_an_exact_share_is_kept_within_two_percent_or_half_a_block(steps: int, speedup: float) -> None:
    pipe = TinyPipeline(FLUX)
    for seeds, guidance in (([0], None), ([0, 1, 2, 3], "separate")):
        with accelerate(pipe, ScheduledTaylor(speedup=speedup, exact=True)) as run:
            made = pipe(seeds, steps=steps, guidance=guidance)
        for sample in range(len(seeds)):
            off = abs(share_of(run, sample) * speedup - 1.0)
            coarse = 0.5 / (steps * run.trace.blocks) * speedup
            assert off <= max(0.02, coarse) + 1e-9 or steps < speedup
            assert (off > 0.02 + 1e-9) is any("nearest to" in warning for warning in run.trace.warnings)
        assert torch.isfinite(made).all()


def test_a_partial_step_runs_the_first_blocks_and_forecasts_what_the_others_add() -> None:
    pipe = TinyPipeline(FLUX)
    counter = BlockCounter([block for _, block in find_family(pipe.transformer).blocks(pipe.transformer)])
    with accelerate(pipe, ScheduledTaylor(speedup=3.0, exact=True)) as run:
        pipe([0], steps=10)
    counter.remove()
    assert counter.counts == [4, 4, 3, 3, 3], "of 5 blocks 2 in the fourth step"
    partial = [call.step for call in run.trace.calls if call.partial]
    assert len(partial) == 1 and partial[0] > max(computed(run))


def test_what_the_first_blocks_gave_beyond_its_forecast_is_added() -> None:
    history = History(1.0, 2, rated=False)
    newest = Anchor(4.0, 4, torch.tensor([1.0]), torch.tensor([5.0]))
    history.anchors = [newest, Anchor(2.0, 2, torch.tensor([0.0]), torch.tensor([3.0]))]
    partial = Partial(depth={0: 2}, reached={("picture", 0): torch.tensor([2.5])})
    weights = history.weights(6.0)
    added = partial.added("picture", 0, history, weights)
    assert added is not None and float(added) == pytest.approx(2.5 - 2.0)
    assert partial.added("picture", 1, history, weights) is None
    history.anchors[1] = Anchor(2.0, 2, None, torch.tensor([3.0]))
    assert not possible([history], 2) and possible([history], 1)


@pytest.mark.parametrize("guidance", ["batched", "separate"])
def test_branches_of_guidance_share_the_steps(guidance: str) -> None:
    pipe = TinyPipeline(FLUX)
    with accelerate(pipe, speedup=3.0) as run:
        pipe([0, 1], steps=12, guidance=guidance)
    by_step: dict[int, set[tuple[bool, ...]]] = {}
    for call in run.trace.calls:
        by_step.setdefault(call.step, set()).add(tuple(call.computed))
    assert all(len(decisions) == 1 for decisions in by_step.values())
    assert len(computed(run)) == 4


@pytest.mark.parametrize("guidance", [None, "batched", "separate"])
@pytest.mark.parametrize("size", [1.0, 0.3])
def test_the_first_clean_picture_says_how_dense_the_steps_lie_unless_guidance_made_it(
    monkeypatch: pytest.MonkeyPatch, guidance: str | None, size: float
) -> None:
    def sized(prediction: Prediction, now: Entry) -> list[float] | None:
        by_size = now.clean * (size / now.clean.square().mean((1, 2), keepdim=True).sqrt())
        return off_scale(prediction, replace(now, clean=by_size))

    monkeypatch.setattr("outpace.accel.forecast.forecaster.off_scale", sized)
    places = []
    for early in (None, 1.0, DENSEST):
        pipe = TinyPipeline(FLUX)
        with accelerate(pipe, ScheduledTaylor(speedup=4.0, early=early)) as run:
            pipe([0, 1], steps=28, guidance=guidance)
        places.append([computed(run, sample) for sample in (0, 1)])
    chosen, even, dense = places
    assert even[0][1] == 4 and dense[0][1] == 2
    assert chosen == (even if size == 1.0 and guidance is None else dense)


@pytest.mark.parametrize("guided", [False, True])
def test_rows_that_begin_alike_and_are_all_stepped_are_pictures_unless_they_go_on_alike(
    monkeypatch: pytest.MonkeyPatch, guided: bool
) -> None:
    """Prompts with one seed; or branches that a pipeline steps all, as DiTPipeline does."""
    told: list[float] = []
    monkeypatch.setattr("outpace.accel.forecast.forecaster.off_scale", lambda prediction, now: [0.1, 0.3])
    monkeypatch.setattr(SchedulePolicy, "sized", lambda self, off: told.append(off))
    pipe = TinyPipeline(FLUX)
    latents, text = noise(pipe.model, [0, 0]), texts([0, 1])
    with accelerate(pipe, ScheduledTaylor(speedup=2.0)):
        pipe.scheduler.set_timesteps(6)
        for t in pipe.scheduler.timesteps:
            field = pipe.model.call(pipe.transformer, latents, t.expand(2).float(), text)
            field = field[:1].expand_as(field) if guided else field
            latents = pipe.scheduler.step(field, t, latents, return_dict=False)[0]
    assert told == [math.inf if guided else 0.3]


def test_two_experts_share_the_budget() -> None:
    pipe = TinyPipeline("WanTransformer3DModel", boundary=500.0)
    with accelerate(pipe, speedup=3.0) as run:
        pipe([0], steps=30)
    assert sum(call.computed[0] for call in run.trace.calls) == 10
    assert {call.denoiser for call in run.trace.calls if call.computed[0]} == {"transformer", "transformer_2"}


def test_speedup_1_changes_nothing() -> None:
    pipe = TinyPipeline(FLUX)
    plain = pipe([0, 1], steps=9)
    with accelerate(pipe, speedup=1) as run:
        made = pipe([0, 1], steps=9)
    assert torch.equal(made, plain) and run.trace.totals()["forecast"] == 0


def test_a_sample_is_decided_by_itself() -> None:
    pipe = TinyPipeline(FLUX)
    with accelerate(pipe, speedup=3.0) as together:
        batch = pipe([3, 4, 5], steps=16)
    for place, seed in enumerate([3, 4, 5]):
        with accelerate(pipe, speedup=3.0) as alone:
            one = pipe([seed], steps=16)
        assert computed(alone) == computed(together, place)
        assert float((batch[place] - one[0]).abs().max()) <= 1e-4 * float(one.abs().max())


def test_a_solver_that_adds_noise_is_forecast_at_order_1_and_a_bare_transformer_by_count() -> None:
    scheduler = EulerAncestralDiscreteScheduler()
    pipe = TinyPipeline("DiTTransformer2DModel", scheduler)
    with accelerate(pipe, speedup=2.0) as run:
        pipe([0], steps=12)
    assert max(o for call in run.trace.calls for o in call.order if o is not None) == 1
    flux = TinyPipeline(FLUX)
    with accelerate(flux.transformer, speedup=3.0) as run:
        flux([0], steps=12)
    assert len(computed(run)) == 4


def entries_of(outputs: list[torch.Tensor], levels: list[float]) -> list[Entry]:
    """Steps at the same latents whose denoiser gave `outputs`, every one of them computed."""
    prediction, seen = Prediction("flow", "flow"), torch.ones_like(outputs[0])
    return [
        Entry(i, u, [True], seen, prediction.clean(u, seen, out), seen, {})
        for i, (u, out) in enumerate(zip(levels, outputs, strict=True))
    ]


def test_the_order_that_would_have_been_best_is_found() -> None:
    torch.manual_seed(0)
    a, b, c = (torch.randn(1, 6, dtype=torch.float64) for _ in range(3))
    levels = [1.0, 0.8, 0.6, 0.4]
    line = entries_of([a + b * i for i in range(4)], levels)
    found = measure(Prediction("flow", "flow"), line[:3], line[3], [0])[0]
    assert found.gap == 1 and found.forecast.errors[1] < 1e-6 < found.forecast.errors[0]
    assert found.forecast.order == pytest.approx(1.0, abs=1e-5)
    square = entries_of([a + b * i + c * i * i for i in range(4)], levels)
    found = measure(Prediction("flow", "flow"), square[:3], square[3], [0])[0]
    assert found.forecast.errors[2] < 1e-6 < found.forecast.errors[1]
    assert found.forecast.order == pytest.approx(2.0, abs=1e-5)
    # Half of the slope stays away: the truth lies between order 0 and order 1.
    half = entries_of([a, a + b, a + 1.5 * b], levels[:3])
    found = measure(Prediction("flow", "flow"), half[:2], half[2], [0])[0]
    assert found.forecast.order == pytest.approx(0.5, abs=1e-5) and found.forecast.error < 1e-6


def test_orders_between_whole_numbers_mix_forecasts() -> None:
    history = History(0.25, 2, rated=False)
    history.anchors = [Anchor(4.0, 4, None, torch.tensor([4.0])), Anchor(2.0, 2, None, torch.tensor([2.0]))]
    weights = history.weights(6.0)
    assert weights == pytest.approx([0.75 * 1.0 + 0.25 * 2.0, 0.25 * -1.0])
    assert float(history.last(weights)) == pytest.approx(0.75 * 4.0 + 0.25 * 6.0)
    nodes = [0.0, 1.0, 2.0]
    one, two = mixed_weights(nodes, 0.5, 1.0), mixed_weights(nodes, 0.5, 2.0)
    assert one == pytest.approx([0.5, 0.5, 0.0])
    assert mixed_weights(nodes, 0.5, 1.5) == pytest.approx([(x + y) / 2 for x, y in zip(one, two, strict=True)])


def test_a_schedule_lands_on_its_own_steps_and_maps_to_others() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(28)
    levels = [float(s) for s in scheduler.sigmas[:-1]]
    places = [0, 2, 5, 9, 14, 19, 25]
    schedule = [levels[p] for p in places]
    assert places_of(schedule, levels, 7) == places
    scheduler.set_timesteps(50)
    longer = places_of(schedule, [float(s) for s in scheduler.sigmas[:-1]], 12)
    assert len(set(longer)) == 12 and longer == sorted(longer) and longer[0] == 0 and longer[-1] < 50
    # Twelve of 50 evenly to step 48, where one more forecast follows: of 28 the last run is as long, and not cut away.
    even = [1.0 - 48 * k / 11 / 50 for k in range(12)]
    mapped = places_of(even, [1.0 - i / 28 for i in range(28)], 7)
    assert {after - before for before, after in itertools.pairwise(mapped)} == {4, 5} and mapped[-1] == 26
    pipe = TinyPipeline(FLUX)
    with accelerate(pipe, ScheduledTaylor(speedup=4.0, levels="1/0.7/0.3", steps=12)) as run:
        pipe([0], steps=24)
    assert len(computed(run)) == 6 and any("calibrated for 12 steps" in w for w in run.trace.warnings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"speedup": 0.5}, "speedup must be a number >= 1"),
        ({"order": 3}, "order must be a number from 0 to 2"),
        ({"replay": 0.5}, "replay must be 0 or from 1 to 2"),
        ({"levels": "0.3/0.7"}, "levels must fall"),
        ({"levels": "1/x"}, "no number"),
        ({"early": 0.5}, "early must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ScheduledTaylor(**settings)


def test_settings_survive_json() -> None:
    method = ScheduledTaylor(speedup=4.0, levels=(1.0, 0.5, 0.25), steps=12, order=1.0)  # pyright: ignore[reportArgumentType]
    assert Method.from_dict(json.loads(json.dumps(method.to_dict()))) == method
    assert method.noise_levels == (1.0, 0.5, 0.25)


class Asked:
    """A pipeline that takes prompts, as a calibration calls it."""

    def __init__(self) -> None:
        self.tiny = TinyPipeline(FLUX)
        self.transformer, self.scheduler, self.calls = self.tiny.transformer, self.tiny.scheduler, 0

    def __call__(self, prompt: list[int], *, num_inference_steps: int = 12, generator: Any = None) -> Any:
        self.calls += 1
        return self.tiny(prompt, steps=num_inference_steps)


def test_a_calibration_keeps_to_its_cost_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pipe, file = Asked(), tmp_path / "cal.json"
    found = ScheduledTaylor.calibrate(pipe, [0, 1], speedup=3.0, cost=8.0, resume=file, num_inference_steps=12)
    assert len(found.noise_levels) == 4 and found.steps == 12
    cost = 2.0 + sum(len(known) for known in json.loads(file.read_text())["known"].values()) / 3.0
    assert cost <= 8.0 + 1e-6
    before = pipe.calls
    again = ScheduledTaylor.calibrate(pipe, [0, 1], speedup=3.0, cost=8.0, resume=file, num_inference_steps=12)
    assert again.noise_levels[0] == found.noise_levels[0] and pipe.calls >= before + 1
    with pytest.raises(InputError, match="another calibration"):
        ScheduledTaylor.calibrate(pipe, [0, 1], speedup=2.0, cost=8.0, resume=file, num_inference_steps=12)
    with pytest.raises(ConfigError, match="before anything is tried"):
        ScheduledTaylor.calibrate(pipe, [0, 1], speedup=3.0, cost=2.0, num_inference_steps=12)


def test_a_method_of_ones_own_is_one_class() -> None:
    from dataclasses import dataclass
    from typing import ClassVar

    from outpace.accel.part import Part, Shared

    class Counting(Part):
        place = "counting"
        calls = 0

        def site(self, denoiser: Any, index: int, site: Any) -> Any:
            from outpace.accel.part import BlockSite

            def count(site: Any, args: Any, kwargs: Any) -> Any:
                Counting.calls += 1
                return site.proceed(*args, **kwargs)

            return BlockSite(site, count)

    @METHODS.register("counting")
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Count(Method):
        name: ClassVar[str] = "counting"
        place: ClassVar[str] = "counting"

        def part(self, shared: Shared) -> Part:
            return Counting(shared)

    try:
        pipe = TinyPipeline(FLUX)
        with accelerate(pipe, Method.from_dict({"method": "counting"}), ScheduledTaylor(speedup=2.0)) as run:
            pipe([0], steps=8)
        assert Counting.calls == 4 * run.trace.blocks, "it lies inside the forecast: skipped blocks are not counted"
    finally:
        METHODS.remove("counting")
