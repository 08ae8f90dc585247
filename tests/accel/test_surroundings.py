"""What others do to a pipeline that is accelerated, in any order: right, refused, or noticed within a run."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig
from diffusers.hooks import apply_first_block_cache, apply_pyramid_attention_broadcast, apply_taylorseer_cache
from tiny import TinyPipeline
from torch import nn

import outpace
from outpace.accel import AdaSpa, BrickSkipping, GatedTaylor, IntervalTaylor, Solver, accelerate
from outpace.accel import trace as traces
from outpace.accel.attention import record as records
from outpace.errors import ConfigError, ConflictError, UnknownNameError

FLUX, WAN = "FluxTransformer2DModel", "WanTransformer3DModel"
METHOD = IntervalTaylor(interval=3, warmup=2)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def accelerated() -> torch.Tensor:
    """What the tiny pipeline makes under the method, uncompiled."""
    pipe = TinyPipeline(FLUX)
    with accelerate(pipe, METHOD):
        return pipe(steps=7)


def wrap(pipe: TinyPipeline) -> None:
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")


def in_place(pipe: TinyPipeline) -> None:
    pipe.transformer.compile(backend="eager")


def its_forward(pipe: TinyPipeline) -> None:
    pipe.transformer.forward = torch.compile(pipe.transformer.forward, backend="eager")


def regional(pipe: TinyPipeline) -> None:
    pipe.transformer.compile_repeated_blocks(backend="eager", fullgraph=True)


@pytest.mark.parametrize("compiling", [wrap, its_forward, regional])
def test_compiled_after_accelerate(compiling: Any) -> None:
    expected = accelerated()
    pipe = TinyPipeline(FLUX)
    with accelerate(pipe, METHOD) as run:
        compiling(pipe)
        made = pipe(steps=7)
        assert (made - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert [c.computed[0] for c in run.trace.calls] == [True, True, False, True, False, False, True]
        said = any("compiled as a whole" in w for w in run.trace.warnings)
        assert said is (compiling is not regional)
    plain = TinyPipeline(FLUX)(steps=7)
    assert (pipe(steps=7) - plain).abs().max() <= 1e-4 * plain.abs().max(), "restored, it is compiled as it was meant"


def test_compiled_as_one_graph_after_accelerate_is_told_the_way_out() -> None:
    pipe = TinyPipeline(FLUX)
    with accelerate(pipe, METHOD):
        pipe.transformer = torch.compile(pipe.transformer, backend="eager", fullgraph=True)
        with pytest.raises(Exception, match=r"outpace accelerates this transformer.*compile_repeated_blocks"):
            pipe(steps=2)


@pytest.mark.parametrize("compiling", [wrap, in_place, its_forward])
def test_compiled_as_a_whole_before_accelerate_is_refused_with_the_way_out(compiling: Any) -> None:
    pipe = TinyPipeline(FLUX)
    compiling(pipe)
    for target in (pipe, pipe.transformer):
        with pytest.raises(ConflictError, match="compile_repeated_blocks"):
            accelerate(target, METHOD)


def test_blocks_compiled_before_accelerate() -> None:
    expected = accelerated()
    pipe = TinyPipeline(FLUX)
    regional(pipe)
    pipe(steps=2)
    with accelerate(pipe, METHOD) as run:
        made = pipe(steps=7)
    assert (made - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert run.trace.totals()["forecast"] == 3


@pytest.mark.parametrize("bare", [False, True])
def test_compiling_in_place_after_accelerate_is_refused(bare: bool) -> None:
    pipe = TinyPipeline(FLUX)
    with accelerate(pipe.transformer if bare else pipe, METHOD) as run:
        with pytest.raises(ConflictError, match=r"would be compiled as a whole.*compile_repeated_blocks"):
            in_place(pipe)
        pipe(steps=7)
        assert run.trace.totals()["forecast"] == 3
    in_place(pipe)
    assert pipe.transformer._compiled_call_impl is not None, "restored, it can be compiled"


def test_a_transformer_that_was_replaced() -> None:
    pipe = TinyPipeline(FLUX)
    run = accelerate(pipe, METHOD)
    pipe.transformer = TinyPipeline(FLUX).transformer
    assert "was replaced" in run.summary(), "before anything runs"
    pipe(steps=7)
    assert "reached no block" in run.summary()
    assert "7 steps" in run.summary()


def test_a_run_that_reached_no_block_says_so() -> None:
    pipe, other = TinyPipeline(FLUX), TinyPipeline(FLUX)
    with accelerate(pipe, METHOD) as run:
        other.scheduler = pipe.scheduler
        other(steps=6)
        assert "a run of 6 steps reached no block" in run.summary()


APPLIED = {
    "first block": lambda t: apply_first_block_cache(t, FirstBlockCacheConfig(threshold=0.1)),
    "attention": lambda t: apply_pyramid_attention_broadcast(
        t, PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500)
    ),
    "taylorseer": lambda t: apply_taylorseer_cache(t, TaylorSeerCacheConfig()),
}


@pytest.mark.parametrize("apply", APPLIED.values(), ids=list(APPLIED))
def test_a_cache_that_is_put_on_by_hand(apply: Any) -> None:
    pipe = TinyPipeline(FLUX)
    apply(pipe.transformer)
    with pytest.raises(ConflictError, match="cache of diffusers put on"):
        accelerate(pipe, METHOD)
    assert "step" not in pipe.scheduler.__dict__
    later = TinyPipeline(FLUX)
    with accelerate(later, METHOD) as run:
        apply(later.transformer)
        alone = pipe(steps=6, context=True)
        assert torch.equal(later(steps=6, context=True), alone), "everything is left to the other cache"
        assert any("left to that" in w for w in run.trace.warnings)


@pytest.mark.parametrize("methods", [[METHOD], [Solver()], [Solver(), METHOD], [AdaSpa(min_tokens=1)]])
def test_a_handle_that_was_not_kept(methods: list[Any]) -> None:
    pipe = TinyPipeline(FLUX)
    plain = pipe(steps=5)
    own = pipe.scheduler
    accelerate(pipe, *methods)
    handle = outpace.handle_of(pipe)
    assert handle is not None and handle.methods == methods
    if not isinstance(methods[0], Solver) or len(methods) > 1:
        assert outpace.handle_of(pipe.transformer) is handle
        with pytest.raises(ConflictError, match=r"outpace.restore\(pipe\)"):
            accelerate(pipe, METHOD)
        assert outpace.handle_of(pipe) is handle, "a refusal takes nothing away"
    outpace.restore(pipe)
    outpace.restore(pipe)
    assert outpace.handle_of(pipe) is None and pipe.scheduler is own
    assert torch.equal(pipe(steps=5), plain)


def test_a_handle_of_a_bare_transformer() -> None:
    pipe = TinyPipeline(WAN)
    accelerate(pipe.transformer, METHOD)
    assert outpace.handle_of(pipe.transformer) is not None
    outpace.restore(pipe.transformer)
    assert outpace.handle_of(pipe.transformer) is None


def test_pickled_and_copied_while_accelerated() -> None:
    pipe = TinyPipeline(FLUX)
    plain = pipe(steps=5)
    with accelerate(pipe, METHOD) as run:
        made = pipe(steps=5)
        count = run.trace.made
        for again in (
            (pickle.loads(pickle.dumps(pipe.transformer)), pickle.loads(pickle.dumps(pipe.scheduler))),
            (copy.deepcopy(pipe.transformer), copy.deepcopy(pipe.scheduler)),
        ):
            other = TinyPipeline(FLUX)
            other.transformer, other.scheduler = again
            assert torch.equal(other(steps=5), plain), "a copy is a plain one"
            with accelerate(other, METHOD):
                assert torch.equal(other(steps=5), made), "and can be accelerated by itself"
            assert torch.equal(other(steps=5), plain)
        assert run.trace.made == count
        assert torch.equal(pipe(steps=5), made)


@pytest.mark.parametrize("method", [METHOD, Solver(), AdaSpa(min_tokens=1), BrickSkipping()])
def test_a_trace_goes_to_another_process_and_a_handle_does_not(method: Any) -> None:
    pipe = TinyPipeline(FLUX)
    with accelerate(pipe, method) as run:
        pipe(steps=5)
        for again in (pickle.loads(pickle.dumps(run.trace)), copy.deepcopy(run.trace)):
            assert again.totals() == run.trace.totals() and again.summary() == run.trace.summary()
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(ConflictError, match="accelerate the copy, or pickle the handle's trace"):
                way(run)


@pytest.mark.parametrize("given", [{"profile": 3}, {"preset": 3}, {"preset": ["fast"]}, {"speedup": "3"}])
def test_what_is_of_no_use_is_refused_by_name(given: dict[str, Any]) -> None:
    pipe = TinyPipeline(FLUX)
    with pytest.raises((ConfigError, UnknownNameError), match=f"{next(iter(given))}"):
        accelerate(pipe, **given)
    assert outpace.handle_of(pipe) is None


@pytest.mark.parametrize("method", [None, 3, "fast", GatedTaylor])
def test_what_is_no_method_is_refused(method: Any) -> None:
    pipe = TinyPipeline(FLUX)
    for given in ([method], method):
        with accelerate(pipe, METHOD) as run, pytest.raises(ConfigError, match="a method is one of"):
            run.assign(given)
    with pytest.raises(ConfigError, match="a method is one of"):
        accelerate(pipe, method)


def test_a_trace_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "LISTED", 20)
    monkeypatch.setattr(records, "LISTED", 20)
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, METHOD, AdaSpa(sparsity=0.5, min_tokens=1, min_gain=0.0, drift=1e9)) as run:
        for _ in range(8):
            pipe(steps=7)
        totals = run.trace.totals()
        assert (totals["calls"], totals["forecast"]) == (56, 24)
        assert len(run.trace.calls) <= 20
        assert len(run.trace.attention.searches) <= 20 and len(run.trace.attention.drifts) <= 20
        assert "of the newest" in run.summary()
        assert [c.step for c in run.trace.since(50)] == list(range(1, 7))
        run.trace.clear()
        assert run.trace.totals()["calls"] == 0


@pytest.mark.parametrize("steps", [3, 8])
def test_a_run_too_short_to_forecast_says_what_to_try(steps: int) -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, GatedTaylor(warmup=8)) as run:
        pipe(steps=steps)
        assert f"{steps} steps: too few to forecast" in run.summary()
        assert ("IntervalTaylor(interval=2, warmup=2, correct=True)" in run.summary()) is (steps == 8)
    with accelerate(pipe, IntervalTaylor(interval=2, warmup=2, correct=True)) as run:
        pipe(steps=8)
        assert run.trace.totals()["forecast"] == 3, "what is proposed does forecast"
        assert "too few" not in run.summary()


def test_a_run_that_is_exact_on_purpose_gets_no_advice() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, GatedTaylor(threshold=0.0)) as run:
        pipe(steps=8)
    assert "too few" not in run.summary()


def test_modules_know_no_more_of_it_afterwards() -> None:
    pipe = TinyPipeline(FLUX)
    before = {name: set(vars(module)) for name, module in pipe.transformer.named_modules()}
    mine = set(vars(pipe))
    with accelerate(pipe, METHOD, AdaSpa(min_tokens=1)):
        pass
    assert {name: set(vars(module)) for name, module in pipe.transformer.named_modules()} == before
    assert set(vars(pipe)) == mine
    assert isinstance(pipe.transformer, nn.Module)
