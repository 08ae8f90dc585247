"""Compiled blocks and offloaded weights, set up before or after the acceleration and taken down in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import accelerate as hf_accelerate
import pytest
import torch
from closeness import assert_same_but_rounding
from decisions import dividing_threshold, mixed_calls
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import apply_group_offloading
from tiny import BlockCounter, TinyPipeline
from torch import nn

from outpace.accel import GatedTaylor, IntervalTaylor, accelerate
from outpace.errors import ConflictError

FLUX = "FluxTransformer2DModel"
METHOD = IntervalTaylor(interval=3, warmup=2)


class Graphs:
    """A compiler that compiles nothing and counts the graphs it is given."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        self.count += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compile_blocks(transformer: Any) -> Graphs:
    graphs = Graphs()
    transformer.compile_repeated_blocks(fullgraph=True, backend=graphs)
    return graphs


@pytest.mark.parametrize("first", ["compile", "accelerate"])
def test_compiled_blocks_stay_whole(first: str) -> None:
    with accelerate(TinyPipeline(FLUX), METHOD) as run:
        expected = run._target(steps=7)
    pipe = TinyPipeline(FLUX)
    if first == "compile":
        graphs = compile_blocks(pipe.transformer)
        pipe(steps=2)
        plain_count = graphs.count
        run = accelerate(pipe, METHOD)
    else:
        run = accelerate(pipe, METHOD)
        graphs = compile_blocks(pipe.transformer)
        plain_count = None
    # fullgraph=True raises where a graph would break.
    assert_same_but_rounding(pipe(steps=7), expected)
    assert run.trace.totals()["forecast"] > 0
    assert graphs.count > 0
    assert plain_count in (None, graphs.count), "the acceleration made no graph of its own"
    accelerated_count = graphs.count
    run.restore()
    plain = TinyPipeline(FLUX)(steps=7)
    assert_same_but_rounding(pipe(steps=7), plain)
    assert graphs.count == accelerated_count, "restored, the blocks are the compiled ones still"


def test_compiled_blocks_serve_some_rows_of_a_batch() -> None:
    pipe = TinyPipeline("QwenImageTransformer2DModel")
    seeds = [0, 1, 2]
    method = GatedTaylor(
        threshold=dividing_threshold(pipe, seeds, steps=7), gate="paper", order=1, warmup=3, correct=False
    )
    with accelerate(pipe, method) as run:
        expected = pipe(seeds, steps=7)
        assert mixed_calls(run.trace) > 0
    compile_blocks(pipe.transformer)
    with accelerate(pipe, method) as run:
        assert_same_but_rounding(pipe(seeds, steps=7), expected)
        assert mixed_calls(run.trace) > 0


def test_a_transformer_compiled_as_a_whole_is_refused() -> None:
    pipe = TinyPipeline(FLUX)
    pipe.transformer.compile(backend="eager")
    with pytest.raises(ConflictError, match="compile_repeated_blocks"):
        accelerate(pipe, METHOD)


def group_offload(transformer: nn.Module) -> None:
    cpu = torch.device("cpu")
    apply_group_offloading(transformer, cpu, cpu, offload_type="block_level", num_blocks_per_group=1)


def weights_offload(transformer: nn.Module) -> None:
    """`enable_sequential_cpu_offload`: weights live outside the module and come for each call."""
    hf_accelerate.cpu_offload(transformer, execution_device=torch.device("cpu"))


def model_offload(transformer: nn.Module) -> None:
    """`enable_model_cpu_offload`: the whole model is moved at its call."""
    hf_accelerate.cpu_offload_with_hook(transformer, execution_device=torch.device("cpu"))


OFFLOADS = {"group": group_offload, "weights": weights_offload, "model": model_offload}


@pytest.mark.parametrize("cls", [FLUX, "DiTTransformer2DModel"])
@pytest.mark.parametrize("first", ["offload", "accelerate"])
@pytest.mark.parametrize("how", list(OFFLOADS))
def test_offloaded_weights(how: str, first: str, cls: str) -> None:
    plain = TinyPipeline(cls)(steps=6)
    with accelerate(TinyPipeline(cls), METHOD) as run:
        expected = run._target(steps=6)
    assert not torch.equal(expected, plain)
    pipe = TinyPipeline(cls)
    if first == "offload":
        OFFLOADS[how](pipe.transformer)
        run = accelerate(pipe, METHOD)
    else:
        run = accelerate(pipe, METHOD)
        OFFLOADS[how](pipe.transformer)
    hooked = forwards(pipe.transformer)
    assert hooked, "it put something in the place of forward"
    assert torch.equal(pipe(steps=6), expected)
    run.restore()
    assert forwards(pipe.transformer) == hooked, "offloading outlives the acceleration"
    assert torch.equal(pipe(steps=6), plain)


def forwards(transformer: nn.Module) -> list[str]:
    return [name for name, module in transformer.named_modules() if "forward" in module.__dict__]


def test_a_skipped_block_does_not_fetch_its_weights() -> None:
    pipe = TinyPipeline(FLUX)
    weights_offload(pipe.transformer)
    blocks = [*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks]
    fetched: list[int] = []
    for i, block in enumerate(blocks):
        linear = next(m for m in block.modules() if isinstance(m, nn.Linear))
        hook = linear._hf_hook
        inner = hook.pre_forward
        hook.pre_forward = lambda *a, _i=i, _inner=inner, **k: (fetched.append(_i), _inner(*a, **k))[1]
    with accelerate(pipe, IntervalTaylor(interval=3, warmup=2, cooldown=0)) as run:
        pipe(steps=5)
    computed = sum(c.computed[0] for c in run.trace.calls)
    assert computed == 3
    assert [fetched.count(i) for i in range(len(blocks))] == [computed] * len(blocks)


def test_hooks_taken_off_in_the_middle_leave_the_acceleration() -> None:
    pipe = TinyPipeline(FLUX)
    weights_offload(pipe.transformer)
    blocks = list(pipe.transformer.single_transformer_blocks)
    with accelerate(pipe, METHOD):
        expected = pipe(steps=6)
        hf_accelerate.hooks.remove_hook_from_submodules(pipe.transformer)
        counter = BlockCounter(blocks)
        assert torch.equal(pipe(steps=6), expected)
        assert counter.counts == [3] * len(blocks), "three of six steps were forecast"


def test_a_cache_of_diffusers_is_refused_before_and_left_alone_after() -> None:
    pipe = TinyPipeline(FLUX)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ConflictError, match="disable_cache"):
        accelerate(pipe, METHOD)
    cached = pipe(steps=6, context=True)
    pipe.transformer.disable_cache()
    with accelerate(pipe, METHOD) as run:
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        assert torch.equal(pipe(steps=6, context=True), cached)
        assert any("diffusers cache" in w for w in run.trace.warnings)
        pipe.transformer.disable_cache()
        assert not torch.equal(pipe(steps=6, context=True), cached)
        assert run.trace.totals()["forecast"] > 0
