"""Bricks that are left out: exact where nothing is, not called where something is, and right beside everything else."""

from __future__ import annotations

import json

import pytest
import torch
from closeness import assert_same_but_rounding
from diffusers import DDIMScheduler, FlowMatchHeunDiscreteScheduler
from tiny import BlockCounter, TinyPipeline
from tiny_models import OWN_MODELS, TINY_MODELS
from torch import nn

from outpace.accel import AdaSpa, Brick, BrickSkipping, GatedTaylor, IntervalTaylor, Method, accelerate, find_family
from outpace.accel.levels import noise_levels
from outpace.cli.options.method import parse_combination, spell_combination
from outpace.errors import ConfigError, ConflictError

every_model = pytest.mark.parametrize("cls", [*TINY_MODELS, *OWN_MODELS])
SEEDS = [0, 1, 2, 3]


def blocks_of(transformer: nn.Module) -> list[nn.Module]:
    return [block for _, block in find_family(transformer).blocks(transformer)]


@every_model
def test_a_schedule_that_never_applies_is_bit_identical(cls: str) -> None:
    pipe = TinyPipeline(cls)
    plain = pipe(SEEDS[:2], steps=4, guidance="separate")
    for schedule in ("", "0-1@0.9..0.95"):
        with accelerate(pipe, BrickSkipping(schedule=schedule)) as run:
            assert torch.equal(pipe(SEEDS[:2], steps=4, guidance="separate"), plain)
        assert run.trace.totals()["skipped"] == 0
    assert torch.equal(pipe(SEEDS[:2], steps=4, guidance="separate"), plain)


@every_model
def test_a_block_left_out_is_not_called_in_any_branch(cls: str) -> None:
    pipe = TinyPipeline(cls)
    blocks = blocks_of(pipe.transformer)
    counter = BlockCounter(blocks)
    with accelerate(pipe, BrickSkipping(schedule=[(1, 1, 0.0, 0.45)])) as run:
        pipe(steps=6, guidance="separate")
    out = 2 * sum(level <= 0.45 for level in noise_levels(pipe.scheduler)[:-1])
    assert out > 0
    assert counter.counts == [12, 12 - out, *[12] * (len(blocks) - 2)]
    assert run.trace.totals()["skipped"] == out
    assert sum(call.blocks for call in run.trace.calls) == 12 * len(blocks) - out
    assert f"{out} of {12 * len(blocks)} blocks left out" in run.summary()


@every_model
def test_the_change_of_the_same_input_again_is_exact(cls: str) -> None:
    pipe = TinyPipeline(cls)
    last = len(blocks_of(pipe.transformer)) - 1
    x, t = torch.randn(2, *pipe.model.latent), torch.full((2,), 620.0)
    text = torch.randn(2, 5, 16)
    plain = pipe.model.call(pipe.transformer, x, t, text)
    with accelerate(pipe, BrickSkipping(schedule=f"0-{last}")) as run:
        pipe.scheduler.set_timesteps(4)
        for moment in pipe.scheduler.timesteps:
            assert_same_but_rounding(pipe.model.call(pipe.transformer, x, t, text), plain)
            pipe.scheduler.step(plain, moment, x)
    assert [call.blocks for call in run.trace.calls] == [2.0 * (last + 1), 0.0, 0.0, 0.0]


@pytest.mark.parametrize("cls", ["DiTTransformer2DModel", "FluxTransformer2DModel", "WanTransformer3DModel"])
@pytest.mark.parametrize("guidance", ["separate", "batched"])
def test_a_sample_never_depends_on_its_batch(cls: str, guidance: str) -> None:
    pipe = TinyPipeline(cls)
    methods: list[Method] = [
        GatedTaylor(threshold=0.2, gate="paper", order=1, correct=False),
        BrickSkipping(schedule="1@0..0.95:0.5"),
    ]
    with accelerate(pipe, *methods) as run:
        together = pipe(SEEDS, steps=10, guidance=guidance)
        skipped = [sum(call.skipped[i] for call in run.trace.calls) for i in range(len(SEEDS))]
        for i, seed in enumerate(SEEDS):
            run.trace.clear()
            assert_same_but_rounding(together[i], pipe([seed], steps=10, guidance=guidance)[0])
            assert sum(call.skipped[0] for call in run.trace.calls) == skipped[i] > 0


def test_a_share_is_spread_evenly() -> None:
    pipe = TinyPipeline("DiTTransformer2DModel", num_layers=3)
    with accelerate(pipe, BrickSkipping(schedule="0-2:0.5")) as run:
        pipe(steps=8)
    assert [call.blocks for call in run.trace.calls] == [3.0, 0.0] * 4


def test_nothing_at_all_may_stand_in() -> None:
    pipe = TinyPipeline("DiTTransformer2DModel")
    counter = BlockCounter(blocks_of(pipe.transformer))
    last = len(blocks_of(pipe.transformer)) - 1
    with accelerate(pipe, BrickSkipping(schedule=f"0-{last}", reuse=False)):
        pipe(steps=3)
    assert not any(counter.counts)


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), FlowMatchHeunDiscreteScheduler()])
def test_the_noise_level_decides_under_any_scheduler(scheduler: object) -> None:
    pipe = TinyPipeline("DiTTransformer2DModel", scheduler)
    with accelerate(pipe, BrickSkipping(schedule="1@0.2..0.5")) as run:
        for steps in (6, 12):
            run.trace.clear()
            pipe(steps=steps)
            for call in run.trace.calls:
                assert call.sigma is not None
                assert sum(call.skipped) == (0.2 <= call.sigma <= 0.5)
            assert run.trace.totals()["skipped"] > 0


def test_both_denoisers_of_a_pipeline_are_taken() -> None:
    pipe = TinyPipeline("WanTransformer3DModel", boundary=500.0)
    counters = [BlockCounter(blocks_of(t)) for t in (pipe.transformer, pipe.transformer_2)]
    with accelerate(pipe, BrickSkipping(schedule="0")):
        pipe(steps=8)
    for counter in counters:
        assert counter.counts[0] == 1 < counter.counts[1]


@pytest.mark.parametrize("forecast", [IntervalTaylor(interval=2, warmup=2), GatedTaylor(threshold=0.0)])
def test_a_forecast_decides_the_step_and_the_schedule_what_runs_in_it(forecast: Method) -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    counter = BlockCounter(blocks_of(pipe.transformer))
    with accelerate(pipe, forecast, BrickSkipping(schedule="1:0.5")) as run:
        pipe(steps=9)
    computed = sum(sum(call.computed) for call in run.trace.calls)
    assert counter.counts[1] == computed - computed // 2
    assert counter.counts[0] == counter.counts[2] == computed
    assert all(not any(call.skipped) for call in run.trace.calls if not any(call.computed))


def test_the_block_that_a_gate_asks_always_runs() -> None:
    pipe = TinyPipeline("DiTTransformer2DModel")
    counter = BlockCounter(blocks_of(pipe.transformer))
    with accelerate(pipe, GatedTaylor(threshold=0.0, gate="budget"), BrickSkipping(schedule="0-1")) as run:
        pipe(steps=5)
    assert counter.counts[:2] == [5, 1]
    assert "block 0 runs" in run.summary()


def test_sparse_attention_runs_in_the_blocks_that_are_left() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    sparse = AdaSpa(recall=0.5, block=16, min_tokens=1, min_gain=0.0)
    with accelerate(pipe, sparse, BrickSkipping(schedule="1:0.5")) as run:
        out = pipe(steps=8)
    assert torch.isfinite(out).all()
    assert run.trace.totals()["skipped"] == 4
    assert not any("could not be reached" in warning for warning in run.trace.warnings)


def test_spellings_are_one() -> None:
    method = BrickSkipping(schedule=[(4, 7, 0.25, 1.0, 0.5), Brick(first=2, last=2), (0, 0, 0.0, 1.0)], reuse=False)
    assert method.schedule == "4-7@0.25..1:0.5/2/0"
    assert BrickSkipping(schedule=method.schedule, reuse=False) == method
    assert Method.from_dict(json.loads(json.dumps(method.to_dict()))) == method
    assert parse_combination(spell_combination([method])) == [method]
    assert parse_combination("bricks:schedule=3") == [BrickSkipping(schedule=[(3, 3, 0.0, 1.0)])]
    assert parse_combination("bricks:schedule=3/5") == [BrickSkipping(schedule="3/5")]


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("x", "cannot read the brick 'x'"),
        ("4-2", "last block"),
        ("4@0.5..0.2", "highest noise level"),
        ("4@0..1.2", "highest noise level"),
        ("4@a..b", "no number"),
        ("4:0", "share is above 0"),
        ("4:2", "share of the steps"),
        ([(1, 2, 0.1)], "a brick is"),
        ([(1.5, 2, 0.1, 0.2)], "first block"),
        ([None], "a brick is"),
        (None, "cannot read the brick"),
        (True, "cannot read the brick"),
    ],
)
def test_a_bad_schedule_is_one_clear_error(schedule: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        BrickSkipping(schedule=schedule)  # pyright: ignore[reportArgumentType]


def test_a_block_that_is_not_there_leaves_the_pipeline_untouched() -> None:
    pipe = TinyPipeline("DiTTransformer2DModel")
    with pytest.raises(ConfigError, match="leaves out block 99"):
        accelerate(pipe, BrickSkipping(schedule="0-99"))
    accelerate(pipe, BrickSkipping()).restore()
    with pytest.raises(ConflictError, match="both take the bricks"):
        accelerate(pipe, BrickSkipping(), BrickSkipping(schedule="1"))
