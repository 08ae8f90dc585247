"""Requests that share one transformer: each gets what it would get alone, or a refusal that names the way out."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny import TinyPipeline, noise, texts

from outpace.accel import AdaSpa, BrickSkipping, ExactReuse, GatedTaylor, IntervalTaylor, ScheduledTaylor, accelerate
from outpace.errors import ConflictError

WAN = "WanTransformer3DModel"
GATED = GatedTaylor(threshold=1e6, gate="paper", warmup=3, max_skips=2)
METHODS = {
    "gated": [GATED],
    "corrected": [IntervalTaylor(interval=3, warmup=2, correct=True)],
    "scheduled": [ScheduledTaylor(speedup=2.0)],
    "bricks": [BrickSkipping(schedule="1-2@0..0.8:0.5")],
    "sparse": [AdaSpa(sparsity=0.5, min_tokens=1, min_gain=0.0), IntervalTaylor(interval=2)],
    "exact": [GatedTaylor(threshold=0.0)],
    "reuse": [ExactReuse(), IntervalTaylor(interval=2)],
}
every_method = pytest.mark.parametrize("methods", METHODS.values(), ids=list(METHODS))


class Steps:
    """One request, taken a step at a time, on a transformer that others may use between the steps."""

    def __init__(self, pipe: TinyPipeline, seed: int, steps: int = 8, scheduler: Any = None, begin: int = 0) -> None:
        self.pipe, self.x, self.text = pipe, noise(pipe.model, [seed]), texts([seed])
        self.scheduler = scheduler if scheduler is not None else FlowMatchEulerDiscreteScheduler()
        self.steps, self.begin = steps, begin
        self.left: list[torch.Tensor] = []

    def start(self) -> None:
        self.scheduler.set_timesteps(self.steps)
        self.scheduler.set_begin_index(self.begin)
        self.left = list(self.scheduler.timesteps[self.begin :])

    def step(self) -> None:
        t = self.left.pop(0)
        out = self.pipe.model.call(self.pipe.transformer, self.x, t.expand(1).float(), self.text)
        self.x = self.scheduler.step(out, t, self.x, return_dict=False)[0]

    def run(self, between: Callable[[], None] = lambda: None) -> torch.Tensor:
        self.start()
        while self.left:
            self.step()
            between()
        return self.x


@every_method
def test_two_threads_with_a_scheduler_each(methods: list[Any]) -> None:
    pipe = TinyPipeline(WAN)
    steps = (8, 11)
    with accelerate(pipe, *methods) as run:
        alone = [Steps(pipe, seed, steps[seed]).run() for seed in range(2)]
        decided = [[c.computed for c in run.trace.calls if c.run == r] for r in range(2)]
        run.trace.clear()
        together: dict[int, torch.Tensor] = {}
        meet = threading.Barrier(2, timeout=20)

        def work(seed: int) -> None:
            def wait() -> None:
                if len(requests[seed].left) >= steps[seed] - 6:
                    meet.wait()

            with torch.no_grad():
                together[seed] = requests[seed].run(wait)

        requests = [Steps(pipe, seed, steps[seed]) for seed in range(2)]
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        runs = dict.fromkeys(c.run for c in run.trace.calls)
        again = [[c.computed for c in run.trace.calls if c.run == r] for r in runs]
    assert sorted(together) == [0, 1], "none of the two failed"
    for seed in range(2):
        assert torch.equal(together[seed], alone[seed])
    assert sorted(map(str, again)) == sorted(map(str, decided))


def test_the_end_of_one_threads_run_leaves_anothers_alone() -> None:
    """Pipelines have diffusers' caches reset when theirs ends, which is in the midst of others'."""
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, ScheduledTaylor(speedup=2.0)) as run:
        alone = Steps(pipe, 0).run()

        def ends() -> None:
            for reset in (pipe.transformer._reset_stateful_cache, run.reset):
                thread = threading.Thread(target=reset)
                thread.start()
                thread.join()

        assert torch.equal(Steps(pipe, 0).run(ends), alone)


def test_two_threads_of_the_pipeline_itself_one_with_its_own_scheduler() -> None:
    pipe = TinyPipeline(WAN)
    other = TinyPipeline(WAN)
    other.transformer = pipe.transformer
    with accelerate(pipe, GATED):
        alone = [pipe([0], guidance="separate", context=True), other([1], guidance="separate", context=True)]
        together: dict[int, torch.Tensor] = {}
        meet = threading.Barrier(2, timeout=20)

        def work(seed: int) -> None:
            def wait(step: int, latents: torch.Tensor) -> None:
                meet.wait()

            with torch.no_grad():
                one = (pipe, other)[seed]
                together[seed] = one([seed], guidance="separate", context=True, callback=wait)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert torch.equal(together[0], alone[0]) and torch.equal(together[1], alone[1])


def test_two_threads_that_step_one_scheduler_are_refused() -> None:
    pipe = TinyPipeline(WAN)
    errors: list[BaseException] = []
    meet = threading.Barrier(2, timeout=10)

    def wait(step: int, latents: torch.Tensor) -> None:
        if step == 2:
            meet.wait()

    def work(seed: int) -> None:
        try:
            with torch.no_grad():
                pipe([seed], callback=wait)
        except (ConflictError, threading.BrokenBarrierError) as error:
            errors.append(error)
            meet.abort()

    with accelerate(pipe, GATED):
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        conflicts = [str(error) for error in errors if isinstance(error, ConflictError)]
        assert conflicts and "a scheduler of its own" in conflicts[0]
        assert torch.isfinite(pipe([0])).all(), "and the next run goes well"


@every_method
def test_taking_turns_in_one_thread_by_name(methods: list[Any]) -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, *methods) as run:
        requests = [Steps(pipe, seed, 8 + seed) for seed in range(3)]
        alone = []
        for one in requests:
            with run.request(one.scheduler):
                alone.append(Steps(pipe, len(alone), one.steps, one.scheduler).run())
        names = [run.request(one.scheduler) for one in requests]
        for one in requests:
            one.start()
        while any(one.left for one in requests):
            for name, one in zip(names, requests, strict=True):
                with name:
                    if one.left:
                        one.step()
    for one, expected in zip(requests, alone, strict=True):
        assert torch.equal(one.x, expected)
        assert not {"step", "set_timesteps"} & one.scheduler.__dict__.keys(), "restored, its scheduler is as it was"


def test_a_run_inside_another_ones_callback() -> None:
    pipe, other = TinyPipeline(WAN), TinyPipeline(WAN)
    other.transformer = pipe.transformer
    with accelerate(pipe, GATED) as run:
        alone = pipe([0]), other([1])
        inner: list[torch.Tensor] = []

        def make(step: int, latents: torch.Tensor) -> None:
            if step == 4:
                with run.request(other.scheduler):
                    inner.append(other([1]))

        outer = pipe([0], callback=make)
    assert torch.equal(outer, alone[0])
    with accelerate(other, GATED):
        assert torch.equal(inner[0], other([1])), "with its own scheduler it is followed as if accelerated itself"


@pytest.mark.parametrize("tapped", [False, True])
def test_taking_turns_in_one_thread_without_a_name_is_refused(tapped: bool) -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, GATED) as run:
        first = Steps(pipe, 0, scheduler=pipe.scheduler if tapped else copy.deepcopy(pipe.scheduler))
        second = Steps(pipe, 1, scheduler=copy.deepcopy(pipe.scheduler))
        first.start()
        second.start()
        with pytest.raises(ConflictError, match=r"handle.request\(its_scheduler\)"):
            for _ in range(8):
                first.step()
                second.step()
        expected = Steps(pipe, 2, scheduler=copy.deepcopy(pipe.scheduler)).run()
        run.reset()
        assert torch.equal(Steps(pipe, 2, scheduler=copy.deepcopy(pipe.scheduler)).run(), expected)


def test_taking_turns_at_other_times_makes_the_plain_pictures_and_says_why() -> None:
    """Requests that began at different times never meet at one timestep: nothing is forecast, and nothing is wrong."""
    pipe = TinyPipeline(WAN)
    plain = [Steps(pipe, seed, 8 + 3 * seed).run() for seed in range(2)]
    with accelerate(pipe, GATED) as run:
        requests = [Steps(pipe, seed, 8 + 3 * seed) for seed in range(2)]
        for one in requests:
            one.start()
        requests[0].step()
        requests[0].step()
        while any(one.left for one in requests):
            for one in reversed(requests):
                if one.left:
                    one.step()
            if len(requests[0].left) == 1:
                break
    assert all(all(c.computed) for c in run.trace.calls)
    assert any("turn back" in w and "request" in w for w in run.trace.warnings)
    with accelerate(pipe, GATED):
        pass
    for one, expected in zip(requests, plain, strict=True):
        while one.left:
            one.step()
        assert torch.equal(one.x, expected)


def test_a_second_pipeline_that_begins_part_of_the_way_down_after_the_first_has_run() -> None:
    pipe, other = TinyPipeline(WAN), TinyPipeline(WAN)
    other.transformer = pipe.transformer
    pipe.scheduler.set_timesteps(7)  # it has run before it is accelerated
    with accelerate(pipe, GATED) as run:
        for _ in range(2):
            other(steps=20, begin=8)
    runs = [[c for c in run.trace.calls if c.run == r] for r in dict.fromkeys(c.run for c in run.trace.calls)]
    assert [len(calls) for calls in runs[-2:]] == [12, 12]
    for calls in runs[-2:]:
        assert {c.branch for c in calls} == {"0"}
        assert sum(not c.computed[0] for c in calls) >= 5
    held = run._conductor.parts[0]._branches
    assert len(held) <= 1


def test_from_pipe_shares_the_transformer_and_the_scheduler() -> None:
    from diffusers import FluxImg2ImgPipeline
    from test_interrupted import flux_pipeline, generate

    pipe, tiny = flux_pipeline()
    again = FluxImg2ImgPipeline.from_pipe(pipe)
    assert again.transformer is pipe.transformer and again.scheduler is pipe.scheduler
    text = texts([1])
    latents = torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(3))
    call = {
        "image": torch.zeros(1, 3, 64, 64),
        "latents": latents,
        "prompt_embeds": text,
        "pooled_prompt_embeds": text.mean(1),
        "height": 64,
        "width": 64,
        "strength": 0.75,
        "num_inference_steps": 12,
        "output_type": "latent",
    }
    with accelerate(pipe, IntervalTaylor(interval=3, warmup=2)) as run:
        fresh = generate(pipe)
        run.trace.clear()
        made = again(**call).images
        assert run.trace.totals()["forecast"] > 0
        assert [c.step for c in run.trace.calls] == list(range(9))
        assert torch.equal(again(**call).images, made)
        assert torch.equal(generate(pipe), fresh)
    del tiny


def test_a_thread_that_has_ended_leaves_nothing() -> None:
    pipe = TinyPipeline(WAN)
    held: list[weakref.ref[Any]] = []
    with accelerate(pipe, GATED) as run:

        def work() -> None:
            one = Steps(pipe, 0)
            one.start()
            with torch.no_grad():
                for _ in range(5):
                    one.step()
            rows = [row for branch in run._conductor.parts[0]._branches.values() for row in branch.rows]
            held.extend(weakref.ref(anchor.last) for row in rows for anchor in row.anchors)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert held
        del thread
        pipe([1])
        gc.collect()
        assert all(ref() is None for ref in held)
