"""Sparse attention beside what else a user sets: backends, processors, compiling, offloading, threads, copies."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.hooks import apply_group_offloading
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry, attention_backend
from larger import adaspa, larger
from tiny import TinyPipeline, noise, texts
from torch import Tensor, nn

from outpace.accel import AdaSpa, IntervalTaylor, accelerate
from outpace.accel.attention.redirect import Redirect
from outpace.errors import ConfigError, MissingDependencyError, UnknownNameError, UnsupportedModelError

FLUX, WAN, SD3 = "FluxTransformer2DModel", "WanTransformer3DModel", "SD3Transformer2DModel"
METHOD = adaspa(recall=0.5, searches=(0.0,))
CLOSE = 2e-5


def processors(pipe: TinyPipeline) -> list[Any]:
    return [module.processor for module in pipe.transformer.modules() if hasattr(module, "processor")]


@pytest.mark.parametrize("cls", [FLUX, WAN])
@pytest.mark.parametrize("first", ["set", "accelerate"])
def test_a_backend_that_a_user_set_stays(cls: str, first: str) -> None:
    pipe = TinyPipeline(larger(cls))
    with accelerate(pipe, METHOD) as run:
        expected = pipe(steps=4)
    active = _AttentionBackendRegistry._active_backend
    if first == "set":
        pipe.transformer.set_attention_backend("_native_math")
        run = accelerate(pipe, METHOD)
    else:
        run = accelerate(pipe, METHOD)
        pipe.transformer.set_attention_backend("_native_math")
    set_active = _AttentionBackendRegistry._active_backend
    assert (pipe(steps=4) - expected).abs().max() <= CLOSE
    assert run.trace.attention.calls["sparse"] > 0, "a processor's own backend is stepped over while it is made sparse"
    for _ in range(2):
        assert {p._attention_backend for p in processors(pipe)} == {AttentionBackendName._NATIVE_MATH}
        assert _AttentionBackendRegistry._active_backend == set_active
        run.restore()
    pipe.transformer.reset_attention_backend()
    _AttentionBackendRegistry._active_backend = active


def test_a_backend_in_force_all_over_is_left_in_force() -> None:
    pipe, other = TinyPipeline(larger(FLUX)), TinyPipeline(larger(SD3))
    with accelerate(pipe, METHOD):
        expected = pipe(steps=4)
    with attention_backend("_native_math"):
        beside = other(steps=4)
        with accelerate(pipe, METHOD) as run:
            assert (pipe(steps=4) - expected).abs().max() <= CLOSE
            assert torch.equal(other(steps=4), beside), "another model's attention is not touched"
        assert _AttentionBackendRegistry._active_backend == AttentionBackendName._NATIVE_MATH
        assert run.trace.attention.calls["sparse"] > 0
    assert all("_attention_backend" not in vars(p) for p in processors(pipe))


def test_backends_are_as_they_were_after_an_exception() -> None:
    pipe = TinyPipeline(larger(WAN))
    run = accelerate(pipe, METHOD)

    def stop(module: Any, args: Any, output: Any) -> None:
        raise KeyboardInterrupt

    handle = pipe.transformer.blocks[1].attn1.to_q.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        pipe(steps=4)
    handle.remove()
    assert all("_attention_backend" not in vars(p) for p in processors(pipe))
    plain = F.scaled_dot_product_attention(*torch.ones(3, 1, 1, 4, 2))
    assert torch.equal(plain, torch.ones(1, 1, 4, 2)), "torch's attention is torch's own again"
    run.restore()


class ByHand:
    """A user's processor for Wan that works attention out by itself."""

    def __call__(self, attn: Any, hidden_states: Tensor, *rest: Any, **more: Any) -> Tensor:
        q, k, v = (
            project(hidden_states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        out = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def test_a_processor_that_works_attention_out_itself_is_left_alone_and_said_once() -> None:
    pipe = TinyPipeline(larger(WAN))
    for block in pipe.transformer.blocks:
        block.attn1.set_processor(ByHand())
    plain = pipe(steps=4)
    with accelerate(pipe, METHOD) as run:
        assert torch.equal(pipe(steps=4), plain)
        assert torch.equal(pipe(steps=4), plain)
    assert len(run.trace.warnings) == 1
    assert "does not end in scaled_dot_product_attention" in run.trace.warnings[0]
    assert "sparse" not in run.trace.attention.calls


class WithPicturesToo:
    """A user's processor for Wan that adds attention to other tokens, as image adapters do."""

    def __init__(self, inner: Any, others: Tensor) -> None:
        self.inner, self.others = inner, others

    def __call__(self, attn: Any, hidden_states: Tensor, *rest: Any, **more: Any) -> Tensor:
        out = self.inner(attn, hidden_states, *rest, **more)
        q = hidden_states.unflatten(2, (2, -1)).transpose(1, 2)
        others = self.others.expand(len(q), 2, -1, -1)
        return out + 0.1 * F.scaled_dot_product_attention(q, others, others).transpose(1, 2).flatten(2)


def test_attention_to_other_tokens_beside_is_left_dense() -> None:
    pipe = TinyPipeline(larger(WAN))
    others = torch.randn(1, 1, 7, 8, generator=torch.Generator().manual_seed(0))
    for block in pipe.transformer.blocks:
        block.attn1.set_processor(WithPicturesToo(block.attn1.processor, others))
    plain = pipe(steps=4)
    with accelerate(pipe, adaspa(recall=0.5, least=1.0, searches=(0.0,), backend="torch")) as run:
        assert (pipe(steps=4) - plain).abs().max() <= CLOSE
    assert run.trace.attention.calls == {"dense": 4, "mass": 4, "sparse": 12}
    assert not run.trace.warnings


def test_with_gradients_everything_is_plain() -> None:
    pipe = TinyPipeline(larger(WAN))
    x, t, text = noise(pipe.model, [0]), torch.tensor([500.0]), texts([0])
    plain = pipe.model.call(pipe.transformer, x, t, text)
    with accelerate(pipe, METHOD) as run, torch.enable_grad():
        x.requires_grad_()
        out = pipe.model.call(pipe.transformer, x, t, text)
        out.sum().backward()
    assert torch.equal(out.detach(), plain)
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not run.trace.attention.calls
    assert len(run.trace.warnings) == 1
    assert "gradients are on" in run.trace.warnings[0]


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("first", ["compile", "accelerate"])
def test_compiled_blocks_run_dense_and_whole_and_say_so_once(first: str, fresh_compiler: None) -> None:
    pipe = TinyPipeline(FLUX)
    plain = pipe(steps=4)
    if first == "accelerate":
        run = accelerate(pipe, METHOD)
    # fullgraph=True raises where a graph would break.
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    if first == "compile":
        run = accelerate(pipe, METHOD)
    assert (pipe(steps=4) - plain).abs().max() <= CLOSE
    assert (pipe(steps=4) - plain).abs().max() <= CLOSE
    assert not run.trace.attention.calls
    assert len(run.trace.warnings) == 1
    assert "compiled blocks" in run.trace.warnings[0]
    run.restore()
    assert (pipe(steps=4) - plain).abs().max() <= CLOSE


@pytest.mark.slow
def test_compiled_blocks_can_still_be_forecast(fresh_compiler: None) -> None:
    pipe = TinyPipeline(FLUX)
    forecast = IntervalTaylor(interval=2, warmup=2)
    with accelerate(pipe, forecast):
        expected = pipe(steps=7)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    with accelerate(pipe, forecast, METHOD) as run:
        assert (pipe(steps=7) - expected).abs().max() <= CLOSE
    assert run.trace.totals()["forecast"] > 0
    assert len(run.trace.warnings) == 1


def group_offload(transformer: nn.Module) -> None:
    cpu = torch.device("cpu")
    apply_group_offloading(transformer, cpu, cpu, offload_type="block_level", num_blocks_per_group=1)


def leaf_offload(transformer: nn.Module) -> None:
    cpu = torch.device("cpu")
    apply_group_offloading(transformer, cpu, cpu, offload_type="leaf_level")


@pytest.mark.parametrize("offload", [group_offload, leaf_offload])
@pytest.mark.parametrize("first", ["offload", "accelerate"])
def test_offloaded_weights(offload: Callable[[nn.Module], None], first: str) -> None:
    pipe = TinyPipeline(larger(WAN))
    plain = pipe(steps=4)
    with accelerate(pipe, METHOD):
        expected = pipe(steps=4)
    assert not torch.equal(expected, plain)
    if first == "offload":
        offload(pipe.transformer)
        run = accelerate(pipe, METHOD)
    else:
        run = accelerate(pipe, METHOD)
        offload(pipe.transformer)
    assert torch.equal(pipe(steps=4), expected)
    run.restore()
    assert torch.equal(pipe(steps=4), plain)


def test_a_deep_copy_is_plain_and_leaves_the_original_alone() -> None:
    pipe, twin = TinyPipeline(larger(WAN)), TinyPipeline(larger(WAN))
    plain = pipe(steps=4)
    with accelerate(pipe, METHOD) as run:
        expected = pipe(steps=4)
        counts = dict(run.trace.attention.calls)
        twin.transformer = copy.deepcopy(pipe.transformer)
        assert torch.equal(twin(steps=4), plain)
        assert run.trace.attention.calls == counts
        assert torch.equal(pipe(steps=4), expected)


def test_threads_keep_their_attention_to_themselves() -> None:
    """Two pipelines made sparse and one that is not, step by step at the same time."""
    pipes = [TinyPipeline(larger(WAN)), TinyPipeline(larger(WAN)), TinyPipeline(larger(SD3))]
    runs = [accelerate(pipe, METHOD) for pipe in pipes[:2]]
    alone = [pipe([i], steps=5) for i, pipe in enumerate(pipes)]
    counts = [dict(run.trace.attention.calls) for run in runs]
    together: dict[int, Tensor] = {}
    meet = threading.Barrier(3, timeout=60)

    def wait(step: int, latents: Tensor) -> None:
        meet.wait()

    def work(i: int) -> None:
        with torch.no_grad():
            together[i] = pipes[i]([i], steps=5, callback=wait)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        assert torch.equal(together[i], alone[i])
    for run, count in zip(runs, counts, strict=True):
        assert run.trace.attention.calls == {kind: 2 * number for kind, number in count.items()}
        run.restore()


def test_a_redirection_ends_with_its_block_and_nests() -> None:
    q = torch.randn(1, 1, 4, 2, generator=torch.Generator().manual_seed(0))
    seen: list[str] = []

    def note(name: str) -> Callable[..., Tensor]:
        def handler(attended: Any, dense: Callable[[], Tensor]) -> Tensor:
            seen.append(name)
            return dense()

        return handler

    plain = F.scaled_dot_product_attention(q, q, q)
    with Redirect(note("outer")), Redirect(note("inner")):
        assert torch.equal(F.scaled_dot_product_attention(q, q, q, scale=None), plain)
    F.scaled_dot_product_attention(q, q, q)
    assert seen == ["inner", "outer"]


def test_a_model_without_self_attention_in_its_blocks_is_refused_and_left_as_it_was() -> None:
    pipe = TinyPipeline(WAN)
    for block in pipe.transformer.blocks:
        block.self_attention = block.attn1
        del block.attn1
    with pytest.raises(UnsupportedModelError, match=r"no self-attention was found.*Stack\(attention=\.\.\.\)"):
        accelerate(pipe, METHOD)
    assert all(module._compiled_call_impl is None for module in pipe.transformer.modules())


@pytest.mark.parametrize(
    ("backend", "error", "reason"),
    [
        ("tritno", ConfigError, "backend must be auto or one of"),
        ("triton", (ConfigError, MissingDependencyError), "triton"),
    ],
)
def test_a_backend_that_cannot_run_is_one_clear_error(backend: str, error: Any, reason: str) -> None:
    pipe = TinyPipeline(larger(WAN))
    plain = pipe(steps=3)
    with (
        pytest.raises(error, match=reason) as caught,
        accelerate(pipe, AdaSpa(recall=0.5, block=16, min_tokens=1, min_gain=0.0, searches=(0.0,), backend=backend)),
    ):
        pipe(steps=3)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, UnknownNameError)
    assert torch.equal(pipe(steps=3), plain), "and the pipeline is as it was"
