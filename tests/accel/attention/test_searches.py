"""When attention is searched, when it runs sparse and when dense: counted over whole runs."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from larger import adaspa, larger
from tiny import TinyPipeline, noise, texts
from tiny_models import TINY_MODELS, TinyModel

from outpace.accel import GatedTaylor, IntervalTaylor, accelerate
from outpace.accel.attention.record import Search
from outpace.accel.methods.adaspa import AdaSpa

WAN = "WanTransformer3DModel"
LAYERS = 4
STEADY = {"recall": 0.6, "drift": 0.0}


def per_layer(run: Any, rows: int = 1) -> dict[str, float]:
    """Calls of one layer by kind."""
    return {kind: count / LAYERS / rows for kind, count in run.trace.attention.calls.items()}


def searched_at(run: Any, layer: int = 1, **which: Any) -> list[int]:
    """Steps, from 0, at which the layer of one block was searched."""
    return [
        search.step
        for search in run.trace.attention.searches
        if search.layer.startswith(f"{layer}.") and all(getattr(search, name) == value for name, value in which.items())
    ]


def facts(searches: list[Search]) -> list[dict[str, Any]]:
    """What was found, without the run and the place in a batch."""
    names = ("step", "branch", "denoiser", "layer", "cause", "density", "recall", "least_recall", "error", "kept")
    return [{name: getattr(search, name) for name in names} for search in searches]


@pytest.mark.parametrize("method", [AdaSpa.paper(), replace(AdaSpa.paper(0.5), block=16)], ids=["one block", "blocks"])
def test_the_papers_fifty_steps(method: AdaSpa) -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, method) as run:
        pipe(steps=50)
    # The search at step 10 is a dense call and a mass pass, that at step 30 a mass pass and a sparse call.
    assert per_layer(run) == {"dense": 10, "mass": 2, "sparse": 40}
    for layer in range(LAYERS):
        assert searched_at(run, layer) == [9, 29]
    for search in run.trace.attention.searches:
        assert (search.recall is None) == (search.step == 29), "an old normaliser ranks but does not measure"
    assert run.trace.attention.totals()["searches"] == 2 * LAYERS


def test_fifty_steps_by_default() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, adaspa(**STEADY)) as run:
        pipe(steps=50)
    assert per_layer(run) == {"dense": 6, "mass": 2, "sparse": 44}
    assert searched_at(run) == [4, 24]
    assert all(search.recall is not None and min(search.recall) >= 0.6 for search in run.trace.attention.searches)


@pytest.mark.parametrize(
    "forecast",
    [
        IntervalTaylor(interval=3, warmup=2),
        GatedTaylor(threshold=1e6, gate="paper", warmup=2),
        GatedTaylor(threshold=0.3),
    ],
    ids=["interval", "paper", "budget"],
)
def test_skipped_steps_neither_advance_nor_spoil_searches(forecast: Any) -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, forecast, adaspa(**STEADY)) as run:
        pipe(steps=50)
    computed = [call.step for call in run.trace.calls if all(call.computed)]
    skipped = 50 - len(computed)
    assert 0 < skipped < 48
    first, second = (next(step for step in computed if step >= due) for due in (4, 24))
    dense = sum(step <= first for step in computed) + 1
    for layer in range(1, LAYERS):  # a gate runs the first block at skipped steps too
        assert searched_at(run, layer) == [first, second]
    asked = 50 if isinstance(forecast, GatedTaylor) and forecast.gate == "paper" else len(computed)
    calls = run.trace.attention.calls
    assert calls["mass"] == 2 * LAYERS
    assert calls["dense"] + calls["sparse"] == asked + (LAYERS - 1) * len(computed)
    assert calls["sparse"] >= (LAYERS - 1) * (len(computed) - dense)
    assert run.trace.totals()["forecast"] == skipped


def test_a_forecast_leaves_what_was_found_as_it_is() -> None:
    """A search after skipped steps finds what a search of the same input finds without any."""
    pipe = TinyPipeline(WAN)
    x, text = noise(pipe.model, [0]), texts([0])
    found = []
    for others in ([], [IntervalTaylor(interval=4, order=0, warmup=1, cooldown=0)]):
        with accelerate(pipe, *others, adaspa(**STEADY)) as run:
            pipe.scheduler.set_timesteps(13)
            for moment in pipe.scheduler.timesteps:
                pipe.model.call(pipe.transformer, x, torch.tensor([620.0]), text)
                pipe.scheduler.step(x, moment, x)
        found.append([(s.layer, s.density, s.recall) for s in run.trace.attention.searches])
    assert found[0] == found[1]


def guided(pipe: TinyPipeline, seed: int) -> list[Search]:
    """Searches of a run whose latents are always the same, and whose unconditional text is made from `seed`."""
    x = noise(pipe.model, [0])
    with accelerate(pipe, adaspa(**STEADY)) as run:
        pipe.scheduler.set_timesteps(12)
        for moment in pipe.scheduler.timesteps:
            for name, text in (("cond", texts([0])), ("uncond", texts([seed]))):
                with pipe.transformer.cache_context(name):
                    pipe.model.call(pipe.transformer, x, moment[None].float(), text)
            pipe.scheduler.step(x, moment, x)
    return run.trace.attention.searches


def test_each_branch_of_guidance_has_its_own_pattern() -> None:
    pipe = TinyPipeline(larger("HunyuanVideoTransformer3DModel"))
    one, other = guided(pipe, 1), guided(pipe, 2)
    for name, same in (("cond", True), ("uncond", False)):
        first, second = (facts([s for s in searches if s.branch == name]) for searches in (one, other))
        assert [s["step"] for s in first] == [s["step"] for s in second] != []
        assert (first == second) == same


def test_two_denoisers_are_searched_each_by_itself() -> None:
    pipe = TinyPipeline(WAN, boundary=500)
    with accelerate(pipe, adaspa(**STEADY)) as run:
        pipe(steps=20)
    assert searched_at(run, denoiser="transformer") == [1, 9]
    later = searched_at(run, denoiser="transformer_2")
    assert later == [next(call.step for call in run.trace.calls if call.denoiser == "transformer_2")]
    assert run.trace.attention.calls["dense"] == (2 + 1 + 1) * LAYERS


def test_a_run_starts_anew() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, adaspa(**STEADY)) as run:
        first = pipe([0, 1], steps=12)
        middle = pipe([2], steps=12)
        again = pipe([0, 1], steps=12)
    assert torch.equal(first, again)
    assert not torch.equal(first[:1], middle)
    by_run = [facts([s for s in run.trace.attention.searches if s.run == number]) for number in range(3)]
    assert by_run[0] == by_run[2]
    assert [s.run for s in run.trace.attention.searches] == sorted(s.run for s in run.trace.attention.searches)


@pytest.mark.parametrize(
    ("steps", "expected", "at"),
    [
        (1, {"dense": 1}, []),
        (2, {"dense": 1, "mass": 1, "sparse": 1}, [0]),
        (4, {"dense": 1, "mass": 1, "sparse": 3}, [0]),
        (8, {"dense": 2, "mass": 2, "sparse": 6}, [0, 3]),
    ],
)
def test_few_steps(steps: int, expected: dict[str, int], at: list[int]) -> None:
    """A distilled model has no step to lose: search at the first, and again only where it can pay."""
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, adaspa(**STEADY)) as run:
        pipe(steps=steps)
    assert per_layer(run) == expected
    assert searched_at(run) == at


def test_a_search_from_the_first_step_on() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, adaspa(**STEADY, searches=(0.0,))) as run:
        pipe(steps=20)
    assert per_layer(run) == {"dense": 1, "mass": 1, "sparse": 19}


def test_without_a_scheduler_searches_follow_the_timesteps() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe.transformer, adaspa(**STEADY)) as run:
        first = pipe(steps=50)
        assert searched_at(run) == [5, 25], "the first steps at or below 0.9 and 0.5"
        assert per_layer(run) == {"dense": 7, "mass": 2, "sparse": 43}
        assert torch.equal(pipe(steps=50), first), "time that runs back is a new run"
        assert len(searched_at(run)) == 4
    assert any("no scheduler" in warning for warning in run.trace.warnings)


@pytest.mark.parametrize("set_begin", [True, False])
def test_a_run_that_begins_part_of_the_way_down(set_begin: bool) -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, adaspa(**STEADY)) as run:
        pipe(steps=50, begin=20, set_begin=set_begin)
    # Shares of the 30 steps that are taken.
    assert searched_at(run) == [2, 14]
    assert per_layer(run) == {"dense": 4, "mass": 2, "sparse": 26}


@pytest.mark.parametrize(
    "scheduler",
    [
        EulerAncestralDiscreteScheduler(),
        DDPMScheduler(),
        FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_noise_that_is_added_changes_no_search(scheduler: Any) -> None:
    pipe = TinyPipeline(WAN, scheduler)
    with accelerate(pipe, adaspa(**STEADY)) as run:
        pipe(steps=20)
    assert searched_at(run) == [1, 9]
    assert per_layer(run) == {"dense": 3, "mass": 2, "sparse": 17}


def test_a_scheduler_that_calls_twice_a_step() -> None:
    pipe = TinyPipeline(WAN, FlowMatchHeunDiscreteScheduler())
    with accelerate(pipe, adaspa(**STEADY)) as run:
        pipe(steps=20)
    calls = len(run.trace.calls)
    assert calls > 20
    assert run.trace.attention.calls["mass"] == 2 * LAYERS
    assert run.trace.attention.calls["dense"] + run.trace.attention.calls["sparse"] == calls * LAYERS


def drifting(
    latents: Callable[[int], torch.Tensor],
    *,
    model: TinyModel = TINY_MODELS[WAN],
    sharpness: float = 1.0,
    **changes: Any,
) -> Any:
    """A run of 20 steps, all at one time, over latents that are given; `sharpness` multiplies the queries."""
    pipe = TinyPipeline(model)
    for block in pipe.transformer.blocks:
        block.attn1.norm_q.weight *= sharpness
    with accelerate(pipe, adaspa(**{"recall": 0.6, "drift": 0.05, "searches": (0.0,), **changes})) as run:
        pipe.scheduler.set_timesteps(20)
        for step, moment in enumerate(pipe.scheduler.timesteps):
            x = latents(step)
            pipe.model.call(pipe.transformer, x, torch.tensor([620.0]), texts([0]))
            pipe.scheduler.step(x, moment, x)
    return run


def changing(step: int, model: TinyModel = TINY_MODELS[WAN]) -> torch.Tensor:
    """The same latents but for a little noise until step 9, then quite others."""
    return (noise(model, [0]) if step < 9 else 3.0 * noise(model, [1])) + 1e-3 * noise(model, [100 + step])


def test_drift_calls_for_a_search_after_a_change_and_not_after_noise() -> None:
    run = drifting(changing)
    record = run.trace.attention
    assert searched_at(run) == [0, 10], "the step after the change"
    assert searched_at(run, cause="drift") == [10]
    assert {s.cause for s in record.searches if s.step == 0} == {"schedule"}
    small = [d.drift for d in record.drifts if d.step != 9]
    large = [d.drift for d in record.drifts if d.step == 9]
    assert max(small) < 0.01 < 0.05 < min(large)
    assert record.totals()["searches_for_drift"] == LAYERS
    assert searched_at(drifting(changing, drift=0.0)) == [0], "never, where it is switched off"
    assert searched_at(drifting(changing, drift=100.0)) == [0]


def test_a_fall_of_the_recall_calls_for_a_search_after_a_change_and_not_after_noise() -> None:
    model = larger(WAN)
    given = {"model": model, "sharpness": 3.0, "recall": 0.7, "drift": 0.0}
    run = drifting(functools.partial(changing, model=model), slack=0.08, **given)
    record = run.trace.attention
    for layer in range(LAYERS):
        assert searched_at(run, layer, cause="schedule") == [0]
        assert searched_at(run, layer, cause="drift") == [10], "the step after the change"
    before, at, after = (
        [d.recall for d in record.drifts if d.step in steps] for steps in (range(1, 9), [9], range(11, 20))
    )
    assert max(at) < 0.62, "the old pattern does not fit"
    assert min(*before, *after) > 0.68
    patient = drifting(functools.partial(changing, model=model), slack=0.9, **given).trace.attention
    assert {s.step for s in patient.searches} == {0}
    assert len(patient.drifts) == 19 * LAYERS


def test_nothing_is_measured_that_is_not_asked_for() -> None:
    record = drifting(changing, drift=0.0, slack=0.0).trace.attention
    assert not record.drifts
    assert {s.step for s in record.searches} == {0}


@pytest.mark.parametrize("most", [1, 2, 4])
def test_searches_for_drift_are_bounded(most: int) -> None:
    model = TINY_MODELS[WAN]
    run = drifting(lambda step: 3.0 * noise(model, [step]), most_searches=most)
    for layer in range(LAYERS):
        assert len(searched_at(run, layer)) == most


def test_searches_of_the_schedule_count_too() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, adaspa(**STEADY, searches=(0.1, 0.2, 0.4, 0.6), most_searches=3)) as run:
        pipe(steps=20)
    assert searched_at(run) == [1, 3, 7]


def test_no_search_near_the_end() -> None:
    model = TINY_MODELS[WAN]
    run = drifting(lambda step: (3.0 if step >= 16 else 1.0) * noise(model, [int(step >= 16)]))
    assert searched_at(run) == [0], "three steps would not pay for it"


def held(run: Any) -> list[weakref.ref[Any]]:
    """Everything that the engine holds of a run."""
    states = run._conductor.parts[-1]._states.values()
    rows = [row for state in states for row in state.rows]
    tensors = [t for row in rows for t in (row.lse, row.reference) if t is not None]
    indices = [row.index for row in rows if row.index is not None]
    return [weakref.ref(t) for t in (*tensors, *(index.indices for index in indices))]


@pytest.mark.parametrize("fresh", [True, False])
def test_nothing_of_a_run_is_held_after_it(fresh: bool) -> None:
    pipe = TinyPipeline(WAN)
    references: list[weakref.ref[Any]] = []

    def note(step: int, latents: torch.Tensor) -> None:
        if step == 6:
            references.extend(held(run))

    with accelerate(pipe, adaspa(recall=0.6, fresh=fresh)) as run:
        pipe([0, 1], steps=9, guidance="separate", callback=note)
        gc.collect()
        assert len(references) >= 2 * 2 * LAYERS
        assert all(reference() is None for reference in references)
        assert not run._conductor.parts[-1]._states
        assert not run._conductor.parts[-1]._layouts


@pytest.mark.parametrize("block", [0, 2, -1])
def test_after_an_abort_the_next_run_is_right(block: int) -> None:
    pipe = TinyPipeline(WAN)
    plain = pipe([0])
    with accelerate(pipe, adaspa(**STEADY)) as run:
        fresh = pipe([0])
        counts = dict(run.trace.attention.calls)
        calls = 0

        def abort(module: Any, args: Any, output: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise KeyboardInterrupt

        handle = pipe.transformer.blocks[block].register_forward_hook(abort)
        with pytest.raises(KeyboardInterrupt):
            pipe([5])
        handle.remove()
        assert not run._conductor.parts[-1]._states, "what was remembered is freed at once"
        run.trace.clear()
        assert torch.equal(pipe([0]), fresh)
        assert dict(run.trace.attention.calls) == counts
        assert not run.trace.warnings
    assert torch.equal(pipe([0]), plain)


def test_too_small_a_share_of_the_work_is_left_alone_and_said_once() -> None:
    pipe = TinyPipeline(WAN)
    plain = pipe([0, 1], steps=6)
    with accelerate(pipe, adaspa(recall=0.6, min_gain=0.9)) as run:
        assert torch.equal(pipe([0, 1], steps=6), plain)
    assert [w for w in run.trace.warnings if "stays dense" in w] == run.trace.warnings
    assert len(run.trace.warnings) == 1
    assert per_layer(run, rows=2) == {"dense": 6}


def test_too_few_tokens_are_left_alone_and_said_once() -> None:
    pipe = TinyPipeline(WAN)
    plain = pipe([0, 1], steps=6)
    with accelerate(pipe, AdaSpa()) as run:
        assert torch.equal(pipe([0, 1], steps=6), plain)
    assert run.trace.warnings == ["attention stays dense where 32 tokens are fewer than min_tokens=1024"]
    assert per_layer(run, rows=2) == {"fallback": 6}
