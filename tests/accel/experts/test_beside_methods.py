"""Converted transformers under forecasting and sparse attention, in one `accelerate` call."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_same_but_rounding
from decisions import computed_by_sample, dividing_threshold, mixed_calls
from dense_models import middle
from larger import adaspa, larger
from tiny import BlockCounter, TinyPipeline

from outpace.accel import GatedTaylor, accelerate, find_family
from outpace.accel.experts import Conversion, Experts, convert, level_borders, set_active
from outpace.accel.experts.calls import record_calls

some_models = pytest.mark.parametrize(
    "cls",
    [
        "DiTTransformer2DModel",
        "FluxTransformer2DModel",
        "Flux2Transformer2DModel",
        "SD3Transformer2DModel",
        "WanTransformer3DModel",
        "HunyuanVideoTransformer3DModel",
    ],
)


def pipeline(cls: str, *, by_noise: bool = False) -> TinyPipeline:
    pipe = TinyPipeline(larger(cls))
    settings = Conversion(experts=Experts(), groups=(middle(pipe.transformer),))
    if by_noise:
        calls = record_calls(pipe.transformer, lambda: pipe([0], steps=4))
        borders = level_borders(calls, 2, find_family(pipe.transformer).time)
        settings = Conversion(left_out=((), (middle(pipe.transformer).first,)), borders=borders)
    pipe.transformer = convert(pipe.transformer, settings)
    return pipe


@some_models
@pytest.mark.parametrize("by_noise", [False, True], ids=["mixtures", "blocks by noise"])
def test_threshold_zero_and_recall_one_change_nothing(cls: str, by_noise: bool) -> None:
    pipe = pipeline(cls, by_noise=by_noise)
    plain = pipe([0, 1], steps=4, guidance="separate")
    if by_noise:
        set_active(pipe.transformer, "all")
        assert not torch.equal(pipe([0, 1], steps=4, guidance="separate"), plain), "a level does leave a block out"
        set_active(pipe.transformer, "schedule")
    with accelerate(pipe, GatedTaylor(threshold=0.0)) as run:
        assert run.family is find_family(pipe.transformer)
        assert torch.equal(pipe([0, 1], steps=4, guidance="separate"), plain)
    with accelerate(pipe, GatedTaylor(threshold=0.0), adaspa(recall=1.0)):
        assert_same_but_rounding(pipe([0, 1], steps=4, guidance="separate"), plain)
    assert torch.equal(pipe([0, 1], steps=4, guidance="separate"), plain), "and nothing is left behind"


@some_models
def test_forecasts_and_sparse_attention_work_together_on_experts(cls: str) -> None:
    pipe = pipeline(cls)
    counter = BlockCounter([block for _, block in find_family(pipe.transformer).blocks(pipe.transformer)])
    method = GatedTaylor(threshold=1e6, gate="paper", warmup=3, cooldown=1)
    with accelerate(pipe, method, adaspa(recall=0.5, searches=(0.0,))) as run:
        made = pipe([0, 1], steps=8)
    assert torch.isfinite(made).all()
    assert run.trace.totals()["forecast"] == 2 * 4
    assert run.trace.attention.calls["sparse"] > 0
    assert counter.counts[-1] == 4, "the last block is left out of every forecast step"


@pytest.mark.parametrize("cls", ["FluxTransformer2DModel", "WanTransformer3DModel"])
def test_steps_that_compute_some_samples_ask_routers_for_those_only(cls: str) -> None:
    pipe, seeds = pipeline(cls), [0, 1, 2, 3]
    threshold = dividing_threshold(pipe, seeds, steps=10)
    with accelerate(pipe, GatedTaylor(threshold=threshold, gate="paper", order=1, correct=False)) as run:
        together = pipe(seeds, steps=10)
        decided = computed_by_sample(run.trace)
        assert mixed_calls(run.trace) > 0
        for sample in (0, 3):
            run.trace.clear()
            alone = pipe([seeds[sample]], steps=10)
            assert computed_by_sample(run.trace) == [decided[sample]]
            assert_same_but_rounding(together[sample], alone[0])


def test_activity_may_change_while_a_pipeline_is_accelerated() -> None:
    pipe = pipeline("FluxTransformer2DModel")
    with accelerate(pipe, GatedTaylor(threshold=0.0)):
        sparse = pipe(steps=3)
        set_active(pipe.transformer, 0)
        assert not torch.equal(pipe(steps=3), sparse)
        set_active(pipe.transformer, 2)
        assert torch.equal(pipe(steps=3), sparse)
