"""Several streams that leave one model, batches that lie elsewhere than in front, blocks that take turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import BlockCounter, TinyPipeline
from tiny_models import SPECIMENS

from outpace.accel import (
    AdaSpa,
    BrickSkipping,
    GatedTaylor,
    IntervalTaylor,
    Trace,
    accelerate,
    find_family,
)
from outpace.accel.specimens.streams import SOUND
from outpace.errors import UnsupportedModelError

TWO_STREAMS = ("LTX2VideoTransformer3DModel", "MiniMaxH3Transformer3DModel", "Kandinsky6Transformer3DModel")


@pytest.mark.parametrize("cls", [*TWO_STREAMS, "Cosmos3OmniTransformer"])
def test_video_and_sound_are_both_forecast_as_well_as_polynomials_can(cls: str) -> None:
    pipe = TinyPipeline(cls)
    plain = pipe(steps=12)
    far = {}
    for order in (0, 2):
        with accelerate(pipe, IntervalTaylor(interval=2, order=order, warmup=3)) as run:
            made = pipe(steps=12)
        assert run.trace.totals()["forecast"] >= 4
        far[order] = [(a - b).norm() / b.norm() for a, b in zip(parts(made), parts(plain), strict=True)]
    # A stream that were handed on unprocessed would not come nearer with the order.
    assert all(second < first for first, second in zip(far[0], far[2], strict=True))
    assert all(0 < error < 0.2 for error in far[2])


def parts(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return latents[:, :-SOUND], latents[:, -SOUND:]


@pytest.mark.parametrize("gate", ["plan", "paper"])
@pytest.mark.parametrize("cls", TWO_STREAMS)
def test_the_stream_that_is_forecast_worst_decides(cls: str, gate: str) -> None:
    pipe = TinyPipeline(cls)
    with accelerate(pipe, GatedTaylor(threshold=2.0 if gate == "plan" else 0.02, gate=gate)) as run:
        pipe([0, 1], steps=16)
    asked = [(call, s) for call in run.trace.calls for s, error in enumerate(call.error) if error is not None]
    assert len(asked) > 4
    for call, s in asked:
        apart = {name: errors[s] for name, errors in call.streams.items()}
        assert set(apart) == {"picture", "audio"}
        known = [error for error in apart.values() if error is not None]
        assert call.error[s] == max(known)
    worst = {max(("picture", "audio"), key=lambda name: call.streams[name][s] or 0.0) for call, s in asked}
    assert worst  # which one it is may differ from model to model
    assert "audio" in run.summary() and "picture" in run.summary()


def test_one_stream_is_not_told_apart() -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    with accelerate(pipe, GatedTaylor(threshold=2.0)) as run:
        pipe(steps=8)
    assert all(call.streams == {} for call in run.trace.calls)


def test_a_video_may_come_without_sound() -> None:
    specimen = SPECIMENS["Kandinsky6Transformer3DModel"]
    model = specimen.build()
    _, kwargs = specimen.inputs([0, 1], model)
    silent = {**kwargs, "audio_hidden_states": None}
    plain = model(**silent)[0]
    with accelerate(model, IntervalTaylor(interval=2, order=0, warmup=1)) as run:
        for time in (900.0, 800.0, 700.0):
            made = model(**{**silent, "timestep": torch.full((2,), time)})
    assert run.trace.totals()["forecast"] > 0
    assert len(made) == 1 and made[0].shape == plain.shape


def decided(trace: Trace) -> list[int]:
    return [len(call.computed) for call in trace.calls]


def test_one_picture_of_ernie_is_one_sample() -> None:
    pipe = TinyPipeline("ErnieImageTransformer2DModel")
    with accelerate(pipe, IntervalTaylor(interval=2, warmup=1)) as run:
        pipe([0], steps=6)
        assert decided(run.trace) == [1] * 6
        run.trace.clear()
        pipe([0, 1, 2], steps=6)
        assert decided(run.trace) == [3] * 6


def test_latte_runs_its_stacks_by_turns_and_skips_both() -> None:
    pipe = TinyPipeline("LatteTransformer3DModel")
    blocks = [block for _, block in find_family(pipe.transformer).blocks(pipe.transformer)]
    spatial, temporal = pipe.transformer.transformer_blocks, pipe.transformer.temporal_transformer_blocks
    assert blocks == [spatial[0], temporal[0], spatial[1], temporal[1]]
    counter = BlockCounter(blocks)
    with accelerate(pipe, IntervalTaylor(interval=2, warmup=1)) as run:
        pipe(steps=7)
    totals = run.trace.totals()
    assert totals["computed"] == 4 and totals["forecast"] == 3
    assert counter.counts == [4] * 4
    counter.remove()


@pytest.mark.parametrize("cls", ["LatteTransformer3DModel", "ErnieImageTransformer2DModel"])
@pytest.mark.parametrize("method", [AdaSpa(recall=0.9), BrickSkipping(schedule="1-1")])
def test_methods_that_want_a_batch_in_front_say_so(cls: str, method: Any) -> None:
    pipe = TinyPipeline(cls)
    with pytest.raises(UnsupportedModelError, match="one row a sample in front"):
        accelerate(pipe, method)
    plain = pipe(steps=3)
    assert torch.equal(pipe(steps=3), plain)
