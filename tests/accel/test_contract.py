"""What every family is held to, proven on a tiny random transformer of each class that the registry names."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from closeness import assert_same_but_rounding
from decisions import computed_by_sample, dividing_threshold, mixed_calls
from diffusers import UNet2DModel
from tiny import BlockCounter, TinyPipeline, noise, texts
from tiny_models import MORE_MODELS, OWN_MODELS, SPECIMENS, TINY_MODELS
from torch import nn

from outpace.accel import FAMILIES, GatedTaylor, IntervalTaylor, Method, ScheduledTaylor, accelerate, find_family
from outpace.errors import ConfigError, ConflictError, UnsupportedModelError

SEEDS = [0, 1, 2, 3]
every_model = pytest.mark.parametrize(
    "cls", [*TINY_MODELS, *OWN_MODELS, *(pytest.param(cls, marks=pytest.mark.slow) for cls in MORE_MODELS)]
)
every_batch = pytest.mark.parametrize(
    "cls",
    [
        pytest.param(cls, marks=pytest.mark.slow) if cls in MORE_MODELS else cls
        for cls, tiny in {**TINY_MODELS, **OWN_MODELS, **MORE_MODELS}.items()
        if tiny.apart
    ],
)


def blocks_of(transformer: nn.Module) -> list[nn.Module]:
    return [block for _, block in find_family(transformer).blocks(transformer)]


def attributes(pipe: Any) -> dict[str, Any]:
    """Every attribute of every module and of the scheduler; methods by what they are bound to."""
    found: dict[str, Any] = {}
    for owner, thing in [*pipe.transformer.named_modules(prefix="transformer"), ("scheduler", pipe.scheduler)]:
        for name, value in thing.__dict__.items():
            found[f"{owner}.{name}"] = list(value) if isinstance(value, dict) else type(value).__name__
    return found


def test_every_class_of_every_family_has_a_tiny_model() -> None:
    named = {cls for _, family in FAMILIES.items() for cls in family.transformers}
    assert named == {*SPECIMENS}


@every_model
def test_threshold_zero_and_speedup_one_are_bit_identical(cls: str) -> None:
    pipe = TinyPipeline(cls)
    plain = pipe(SEEDS[:2], steps=5, guidance="separate")
    for method in (GatedTaylor(threshold=0.0), ScheduledTaylor(speedup=1.0), ScheduledTaylor(speedup=1.0, exact=True)):
        with accelerate(pipe, method) as run:
            assert torch.equal(pipe(SEEDS[:2], steps=5, guidance="separate"), plain)
        assert run.trace.totals()["forecast"] == 0


@every_model
def test_restore_leaves_nothing_behind(cls: str) -> None:
    pipe = TinyPipeline(cls)
    plain = pipe(steps=5)
    before = attributes(pipe)
    for method in (IntervalTaylor(interval=2, warmup=1), ScheduledTaylor(speedup=2.0)):
        run = accelerate(pipe, method)
        assert not torch.equal(pipe(steps=5), plain)
        run.restore()
        run.restore()
        assert attributes(pipe) == before
        assert torch.equal(pipe(steps=5), plain)


@every_model
def test_the_same_input_again_is_forecast_exactly(cls: str) -> None:
    pipe = TinyPipeline(cls)
    # A time that is none of the schedule's five: the denoiser is asked the same at every step.
    x, t, text = noise(pipe.model, SEEDS[:2]), torch.full((2,), 620.0), texts(SEEDS[:2])
    plain = pipe.model.call(pipe.transformer, x, t, text)
    for method in (
        IntervalTaylor(interval=8, order=0, warmup=1, first=7, cooldown=0),
        ScheduledTaylor(speedup=5.0),
    ):
        with accelerate(pipe, method) as run:
            pipe.scheduler.set_timesteps(5)
            for moment in pipe.scheduler.timesteps:
                out = pipe.model.call(pipe.transformer, x, t, text)
                pipe.scheduler.step(out, moment, x)
                assert_same_but_rounding(out, plain)
        assert run.trace.totals()["forecast"] == 2 * 4


@every_batch
def test_a_sample_never_depends_on_its_batch(cls: str) -> None:
    pipe = TinyPipeline(cls)
    threshold = dividing_threshold(pipe, SEEDS, steps=10)
    with accelerate(pipe, GatedTaylor(threshold=threshold, gate="paper", order=1, correct=False)) as run:
        together = pipe(SEEDS, steps=10)
        decided = computed_by_sample(run.trace)
        assert mixed_calls(run.trace) > 0
        for i, seed in enumerate(SEEDS):
            run.trace.clear()
            alone = pipe([seed], steps=10)
            assert computed_by_sample(run.trace) == [decided[i]]
            assert (together[i] - alone[0]).abs().max() <= pipe.model.rounding * max(1.0, float(alone.abs().max()))


@every_batch
@pytest.mark.parametrize("guidance", [None, "batched"])
def test_a_scheduled_sample_never_depends_on_its_batch(cls: str, guidance: str | None) -> None:
    pipe = TinyPipeline(cls)
    # Where steps lie is fixed: a place that is rounded could lie on either side for a batch and for a sample alone.
    with accelerate(pipe, ScheduledTaylor(speedup=2.0, early=1.2)) as run:
        together = pipe(SEEDS[:2], steps=8, guidance=guidance)
        decided = computed_by_sample(run.trace)
        assert len(decided) == 2 and [sum(steps) for steps in decided] == [4, 4]
        run.trace.clear()
        alone = pipe(SEEDS[1:2], steps=8, guidance=guidance)
        assert computed_by_sample(run.trace) == decided[1:]
        # The mixture of orders is solved for: rounding in what it is solved from is magnified.
        off = (together[1] - alone[0]).abs().max()
        assert off <= 20.0 * pipe.model.rounding * max(1.0, float(alone.abs().max()))


@every_batch
def test_guidance_batched_in_one_tensor_ties_the_rows_of_a_sample(cls: str) -> None:
    pipe = TinyPipeline(cls)
    call = {"steps": 10, "guidance": "batched"}
    threshold = dividing_threshold(pipe, SEEDS, **call)
    with accelerate(pipe, GatedTaylor(threshold=threshold, gate="paper", order=1, correct=False)) as run:
        together = pipe(SEEDS, **call)
        decided = computed_by_sample(run.trace)
        assert len(decided) == len(SEEDS), "a sample and its guidance row are one sample"
        assert mixed_calls(run.trace) > 0
        for i, seed in enumerate(SEEDS):
            run.trace.clear()
            alone = pipe([seed], **call)
            assert computed_by_sample(run.trace) == [decided[i]]
            largest = max(1.0, float(alone.abs().max()))
            # Guidance 2 doubles the rounding of each row.
            assert (together[i] - alone[0]).abs().max() <= 2.0 * pipe.model.rounding * largest


@every_batch
@pytest.mark.parametrize("context", [False, True])
def test_uncond_follows_cond_and_runs_no_block_when_skipped(cls: str, context: bool) -> None:
    pipe = TinyPipeline(cls)
    if context and not hasattr(pipe.transformer, "cache_context"):
        pytest.skip("this class has no cache_context")
    blocks = blocks_of(pipe.transformer)
    counter = BlockCounter(blocks)
    with accelerate(pipe, GatedTaylor(threshold=1e6, gate="paper", warmup=3, cooldown=1)) as run:
        pipe(steps=8, guidance="separate", context=context)
    cond, uncond = run.trace.calls[0::2], run.trace.calls[1::2]
    assert {c.branch for c in cond} == {"cond" if context else "0"}
    assert {c.branch for c in uncond} == {"uncond" if context else "1"}
    assert [c.computed for c in cond] == [c.computed for c in uncond] == [[True]] * 3 + [[False]] * 4 + [[True]]
    assert [c.blocks for c in uncond if not c.computed[0]] == [0.0] * 4
    # Four computed steps in both branches; of the four skipped ones only the first block of the leading branch.
    assert counter.counts == [8 + 4] + [8] * (len(blocks) - 1)
    counter.counts[:] = [0] * len(blocks)
    with accelerate(pipe, ScheduledTaylor(speedup=2.0, early=1.0)) as run:
        pipe(steps=8, guidance="separate", context=context)
    cond, uncond = run.trace.calls[0::2], run.trace.calls[1::2]
    assert [c.computed for c in cond] == [c.computed for c in uncond]
    assert counter.counts == [2 * 4] * len(blocks), "not even the first block is asked"
    counter.remove()


@every_model
def test_what_is_remembered_is_released_at_the_end_of_a_run(cls: str) -> None:
    for method in (GatedTaylor(threshold=1e6, gate="paper"), ScheduledTaylor(speedup=1.4, exact=True)):
        check_release(TinyPipeline(cls), method)


def check_release(pipe: TinyPipeline, method: Method) -> None:
    run = accelerate(pipe, method)
    held: list[weakref.ref[Any]] = []

    def note(step: int, latents: torch.Tensor) -> None:
        assert run._conductor.parts[0] is not None
        if step == 4:
            rows = [row for branch in run._conductor.parts[0]._branches.values() for row in branch.rows]
            kept = [tensor for row in rows for anchor in row.anchors for tensor in (anchor.first, anchor.last)]
            held.extend(weakref.ref(tensor) for tensor in kept if tensor is not None)

    pipe(steps=6, callback=note)
    gc.collect()
    assert held
    assert all(ref() is None for ref in held)
    run.restore()


def test_an_unknown_model_is_refused_with_the_way_out() -> None:
    class Stranger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    with pytest.raises(
        UnsupportedModelError, match=r"Stranger cannot be accelerated before.*register_family.*path='trunk'"
    ):
        accelerate(Stranger(), GatedTaylor())
    with pytest.raises(UnsupportedModelError, match="holds no transformer"):
        accelerate(object(), GatedTaylor())
    unet = UNet2DModel(sample_size=8, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
                       down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="UNet2DModel cannot be accelerated"):
        accelerate(unet, GatedTaylor())


def test_one_block_is_too_few() -> None:
    with pytest.raises(UnsupportedModelError, match="1 block"):
        accelerate(TinyPipeline("DiTTransformer2DModel", num_layers=1), GatedTaylor())


def test_refusals_leave_the_pipeline_untouched() -> None:
    pipe = TinyPipeline("DiTTransformer2DModel")
    before = attributes(pipe)
    with pytest.raises(ConflictError, match="both take the forecast"):
        accelerate(pipe, GatedTaylor(), IntervalTaylor())
    with pytest.raises(ConfigError, match="nothing to apply"):
        accelerate(pipe)
    with pytest.raises(ConfigError, match="a method is one of"):
        accelerate(pipe, "gated_taylor")  # pyright: ignore[reportArgumentType]
    assert attributes(pipe) == before


def test_accelerating_twice_is_refused_and_the_first_goes_on() -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    with accelerate(pipe, IntervalTaylor(interval=2, warmup=1)) as run:
        with pytest.raises(ConflictError, match="accelerated already"):
            accelerate(pipe, GatedTaylor())
        pipe(steps=6)
        assert run.trace.totals()["forecast"] > 0
    before = attributes(TinyPipeline("WanTransformer3DModel"))
    assert [k for k in attributes(pipe) if k.startswith("transformer")] == [
        k for k in before if k.startswith("transformer")
    ]
