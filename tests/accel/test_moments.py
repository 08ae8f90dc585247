"""Runs, steps, branches and experts are told apart however a pipeline drives its denoisers."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from closeness import assert_same_but_rounding
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from tiny import AdapterLayer, TinyPipeline, noise, texts

from outpace.accel import GatedTaylor, IntervalTaylor, accelerate

WAN = "WanTransformer3DModel"
EVERYTHING = GatedTaylor(threshold=1e6, gate="paper", warmup=3, cooldown=1)
"""Skips whatever it may, so that what is computed shows the rules alone."""


def computed(run: Any, branch: str | None = None) -> list[bool]:
    return [c.computed[0] for c in run.trace.calls if branch in (None, c.branch)]


@pytest.mark.parametrize("context", [False, True])
def test_guidance_switched_off_half_way(context: bool) -> None:
    pipe = TinyPipeline(WAN)
    call: dict[str, Any] = {"steps": 10, "guidance": "separate", "guided_steps": 5, "context": context}
    with accelerate(pipe, GatedTaylor(threshold=0.0)):
        assert torch.equal(pipe(**call), TinyPipeline(WAN)(**call))
    with accelerate(pipe, EVERYTHING) as run:
        pipe(**call)
        assert computed(run, "cond" if context else "0") == [True] * 3 + [False] * 6 + [True]
        assert computed(run, "uncond" if context else "1") == [True] * 3 + [False] * 2


def test_guidance_in_one_tensor_switched_off_half_way() -> None:
    pipe = TinyPipeline("DiTTransformer2DModel")
    with accelerate(pipe, EVERYTHING) as run:
        pipe([0, 1], steps=10, guidance="batched", guided_steps=5)
    assert computed(run) == [True] * 3 + [False] * 2 + [True] * 3 + [False] + [True]
    assert [c.reason[0] for c in run.trace.calls][5:8] == ["class_labels changed", "warm-up", "warm-up"]


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("with_scheduler", [False, True])
def test_steps_and_branches_without_help(context: bool, with_scheduler: bool) -> None:
    """98 of the pipelines of diffusers enter no cache_context, and a bare transformer has no scheduler."""
    pipe = TinyPipeline(WAN)
    with accelerate(pipe if with_scheduler else pipe.transformer, EVERYTHING) as run:
        for _ in range(2):
            pipe(steps=8, guidance="separate", context=context)
    cond = [c for c in run.trace.calls if c.branch == ("cond" if context else "0")]
    uncond = [c for c in run.trace.calls if c.branch == ("uncond" if context else "1")]
    for calls in (cond, uncond):
        assert [(c.run, c.step) for c in calls] == [(r, s) for r in range(2) for s in range(8)]
    # Without a scheduler the number of steps is unknown, so the last is not held back.
    once = [True] * 3 + [False] * 4 + [with_scheduler]
    assert [c.computed[0] for c in cond] == [c.computed[0] for c in uncond] == once * 2
    assert any("no scheduler was given" in w for w in run.trace.warnings) is not with_scheduler


@pytest.mark.parametrize("cls", ["Lumina2Transformer2DModel", "FluxTransformer2DModel", WAN])
@pytest.mark.parametrize("with_scheduler", [False, True])
def test_timesteps_may_count_up_down_or_in_fractions(cls: str, with_scheduler: bool) -> None:
    pipe = TinyPipeline(cls)
    with accelerate(pipe if with_scheduler else pipe.transformer, EVERYTHING) as run:
        pipe(steps=8)
        pipe(steps=8)
        pipe(steps=8, begin=4)
    runs = [[c.computed[0] for c in run.trace.calls if c.run == r] for r in range(3)]
    last = with_scheduler
    assert runs == [[True] * 3 + [False] * 4 + [last], [True] * 3 + [False] * 4 + [last], [True] * 3 + [last]]


@pytest.mark.parametrize("scheduler", [FlowMatchEulerDiscreteScheduler, DDIMScheduler, UniPCMultistepScheduler])
@pytest.mark.parametrize("set_begin", [False, True])
def test_a_run_that_begins_in_the_middle_knows_its_noise_levels(scheduler: Any, set_begin: bool) -> None:
    pipe = TinyPipeline(WAN, scheduler())
    if set_begin and not hasattr(pipe.scheduler, "set_begin_index"):
        pytest.skip("this scheduler keeps no begin index")
    with accelerate(pipe, EVERYTHING) as run:
        pipe(steps=10)
        pipe(steps=10, begin=4, set_begin=set_begin)
    whole, part = ([c.sigma for c in run.trace.calls if c.run == r] for r in range(2))
    assert part == whole[4:]
    assert [c.computed[0] for c in run.trace.calls if c.run == 1] == [True] * 3 + [False] * 2 + [True]
    assert not run._conductor.parts[0]._branches, "released at the end, wherever the run began"


@pytest.mark.parametrize("context", [False, True])
def test_two_experts_never_share_history(context: bool) -> None:
    pipe = TinyPipeline(WAN, boundary=500.0)
    plain = pipe(steps=12, guidance="separate", context=context)
    with accelerate(pipe, GatedTaylor(threshold=0.0)):
        assert torch.equal(pipe(steps=12, guidance="separate", context=context), plain)
    with accelerate(pipe, EVERYTHING) as run:
        pipe(steps=12, guidance="separate", context=context)
    leader = "cond" if context else "0"
    for name, decided in (
        ("transformer", [True] * 3 + [False] * 3),
        ("transformer_2", [True] * 3 + [False] * 2 + [True]),
    ):
        assert [c.computed[0] for c in run.trace.calls if (c.denoiser, c.branch) == (name, leader)] == decided


@pytest.mark.parametrize("correct", [False, True])
def test_a_solver_that_visits_noise_levels_twice(correct: bool) -> None:
    pipe = TinyPipeline(WAN, FlowMatchHeunDiscreteScheduler())
    plain = pipe(steps=8)
    with accelerate(pipe, GatedTaylor(threshold=0.0)):
        assert torch.equal(pipe(steps=8), plain)
    for method in (
        GatedTaylor(threshold=1e6, gate="paper", correct=correct),
        IntervalTaylor(interval=4, order=2, correct=correct),
    ):
        with accelerate(pipe, method) as run:
            out = pipe(steps=8)
        assert run.trace.totals()["forecast"] > 0
        assert (out - plain).abs().max() < 0.2 * plain.abs().max()


def test_a_stochastic_solver_lowers_the_order_and_says_why() -> None:
    pipe = TinyPipeline(WAN, FlowMatchEulerDiscreteScheduler(stochastic_sampling=True))
    with accelerate(pipe, IntervalTaylor(interval=3, order=3, warmup=5, correct=True)) as run:
        pipe(steps=12)
    orders = [c.order[0] for c in run.trace.calls if not c.computed[0]]
    assert orders and set(orders) == {1}
    assert any("kept at order 1" in w for w in run.trace.warnings)
    assert any("not corrected" in w and "adds noise" in w for w in run.trace.warnings)


def test_the_solver_may_turn_stochastic_later() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, IntervalTaylor(interval=3, order=2, warmup=5)) as run:
        pipe(steps=12)
        assert max(c.order[0] or 0 for c in run.trace.calls) == 2
        run.trace.clear()
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
        pipe(steps=12)
        assert max(c.order[0] or 0 for c in run.trace.calls) == 1


def test_a_copy_of_the_scheduler_is_a_plain_one() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, EVERYTHING) as run:
        pipe(steps=6)
        count = len(run.trace.calls)
        twin = copy.deepcopy(pipe.scheduler)
        twin.set_timesteps(4)
        x = torch.ones(1, 2)
        for t in twin.timesteps:
            x = twin.step(torch.ones(1, 2), t, x, return_dict=False)[0]
        assert twin._step_index == 4
        assert run._conductor.shared.clock.run == 0, "the copy's runs are not the pipeline's"
        assert len(run.trace.calls) == count
        fresh = pipe(steps=6)
        assert torch.equal(pipe(steps=6), fresh)


@pytest.mark.parametrize("replacement", [FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler])
def test_the_user_replaces_the_scheduler(replacement: Any) -> None:
    first, second = FlowMatchEulerDiscreteScheduler(), replacement()
    pipe = TinyPipeline(WAN, first)
    with accelerate(pipe, EVERYTHING) as run:
        pipe(steps=8)
        pipe.scheduler = second
        pipe(steps=8)
        pipe(steps=8)
        once = [True] * 3 + [False] * 4 + [True]
        assert computed(run) == once * 3
        assert "step" not in first.__dict__, "the one that was left is left as it was"
    assert "step" not in second.__dict__ and "set_timesteps" not in second.__dict__
    assert pipe.scheduler is second


def test_a_scheduler_that_does_not_step_is_not_believed() -> None:
    """A pipeline may step copies of its scheduler, or another pipeline may share the transformer."""
    pipe, other = TinyPipeline(WAN), TinyPipeline(WAN)
    other.transformer = pipe.transformer
    with accelerate(pipe, EVERYTHING) as run:
        pipe(steps=8)
        run.trace.clear()
        for _ in range(3):
            other(steps=8)
        assert computed(run) == ([True] * 3 + [False] * 5) * 3
        assert any("does not step" in w for w in run.trace.warnings)
        assert len(run._conductor.parts[0]._branches) == 1, "nothing piles up"
        run.trace.clear()
        pipe(steps=8)
        assert computed(run) == [True] * 3 + [False] * 4 + [True], "its own pipeline is believed again"


def test_a_stateless_solver_started_again_without_set_timesteps() -> None:
    pipe = TinyPipeline(WAN, DDIMScheduler())
    with accelerate(pipe, EVERYTHING) as run:
        pipe(steps=8, callback=lambda step, latents: None)
        run.trace.clear()
        x, text = noise(pipe.model, [0]), texts([0])
        for t in pipe.scheduler.timesteps:
            field = pipe.model.call(pipe.transformer, x, t.expand(1).float(), text)
            x = pipe.scheduler.step(field, t, x, return_dict=False)[0]
    assert computed(run)[:4] == [True, True, True, False], "a new run, with a warm-up of its own"


def test_two_pipelines_of_one_class_interleaved() -> None:
    one, two = TinyPipeline(WAN), TinyPipeline(WAN, seed=3)
    with accelerate(one, EVERYTHING), accelerate(two, IntervalTaylor(interval=2)):
        alone = one([0]), two([1])
        inner: list[torch.Tensor] = []

        def run_other(step: int, latents: torch.Tensor) -> None:
            if step == 4:
                inner.append(two([1]))

        assert torch.equal(one([0], callback=run_other), alone[0])
        assert torch.equal(inner[0], alone[1])


def test_two_pipelines_of_one_class_in_two_threads() -> None:
    pipes = [TinyPipeline(WAN), TinyPipeline(WAN, seed=3)]
    runs = [accelerate(pipe, EVERYTHING) for pipe in pipes]
    alone = [pipe([i], guidance="separate", context=True) for i, pipe in enumerate(pipes)]
    together: dict[int, torch.Tensor] = {}
    meet = threading.Barrier(2, timeout=60)

    def wait(step: int, latents: torch.Tensor) -> None:
        meet.wait()

    def work(i: int) -> None:
        together[i] = pipes[i]([i], guidance="separate", context=True, callback=wait)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[i], alone[i]) for i in range(2))
    for run in runs:
        run.restore()


def test_another_lora_scale_begins_anew() -> None:
    pipe = TinyPipeline(WAN)
    pipe.transformer._hf_peft_config_loaded = True
    layer = AdapterLayer()
    pipe.transformer.blocks[-1].attn1.adapter = layer

    def change(step: int, latents: torch.Tensor) -> None:
        if step == 4:
            layer.scaling["style"] = 0.5

    with accelerate(pipe, EVERYTHING) as run:
        seen = [run._denoisers[0].adapters.state()]
        pipe(steps=10, callback=change)
        layer.disable_adapters = True
        seen += [run._denoisers[0].adapters.state()]
        layer.active_adapters = []
        seen += [run._denoisers[0].adapters.state()]
    assert len(set(seen)) == 3
    assert computed(run) == [True] * 3 + [False] * 2 + [True] * 3 + [False] + [True]
    assert run.trace.calls[5].reason == ["adapters changed"]


def test_a_lora_scale_given_with_the_call_begins_anew() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    with accelerate(pipe.transformer, EVERYTHING) as run:
        for step, t in enumerate(range(900, 0, -100)):
            scale = {"joint_attention_kwargs": {"scale": 1.0 if step < 5 else 0.5}}
            pipe.model.call(pipe.transformer, noise(pipe.model, [0]), torch.tensor([float(t)]), texts([0]), **scale)
    assert computed(run) == [True] * 3 + [False] * 2 + [True] * 3 + [False]


def test_with_gradients_everything_is_computed() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe.transformer, EVERYTHING) as run, torch.enable_grad():
        x = noise(pipe.model, [0]).requires_grad_()
        for t in (900.0, 800.0, 700.0, 600.0, 500.0):
            out = pipe.model.call(pipe.transformer, x, torch.tensor([t]), texts([0]))
    assert out.requires_grad
    assert not run.trace.calls and any("gradients" in w for w in run.trace.warnings)


@pytest.mark.parametrize("left_out", [[0], [3], [1, 2]])
def test_a_branch_that_leaves_blocks_out_is_its_own(left_out: list[int]) -> None:
    """Skip-layer guidance of SD3: a third call at each step, without some of the blocks."""
    pipe = TinyPipeline("SD3Transformer2DModel")
    x, text, t = noise(pipe.model, [0]), texts([0]), torch.tensor([620.0])
    whole = pipe.model.call(pipe.transformer, x, t, text)
    less = pipe.model.call(pipe.transformer, x, t, text, skip_layers=left_out)
    assert not torch.equal(whole, less)
    with accelerate(pipe, IntervalTaylor(interval=9, order=0, warmup=1, first=8, cooldown=0)) as run:
        pipe.scheduler.set_timesteps(5)
        for moment in pipe.scheduler.timesteps:
            out = pipe.model.call(pipe.transformer, x, t, text)
            assert_same_but_rounding(out, whole)
            assert_same_but_rounding(pipe.model.call(pipe.transformer, x, t, text, skip_layers=left_out), less)
            pipe.scheduler.step(out, moment, x)
    assert computed(run, "0") == [True] + [False] * 4
