"""A run that ends badly, by an exception, an abort or a NaN, leaves the pipeline right for the next call."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from forked import Forked, needs_fork
from tiny import TinyPipeline, noise, texts

from outpace.accel import GatedTaylor, IntervalTaylor, ScheduledTaylor, accelerate

METHODS = [
    GatedTaylor(threshold=1e6, warmup=2),
    GatedTaylor(threshold=0.5, gate="paper", order=1, correct=False),
    IntervalTaylor(interval=3, warmup=2, correct=True),
    ScheduledTaylor(speedup=2.0),
]
every_method = pytest.mark.parametrize("method", METHODS, ids=["budget", "paper", "interval", "scheduled"])


class Stop(Exception):
    """Raised by a user's callback."""


def flux_pipeline() -> tuple[FluxPipeline, TinyPipeline]:
    """The real FluxPipeline around a tiny transformer, with nothing to encode text or decode pictures."""
    tiny = TinyPipeline("FluxTransformer2DModel")
    pipe = FluxPipeline(
        scheduler=tiny.scheduler,
        vae=None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=tiny.transformer,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe, tiny


def generate(pipe: FluxPipeline, seed: int = 0, **more: Any) -> torch.Tensor:
    text = texts([seed])
    return pipe(
        prompt_embeds=text,
        pooled_prompt_embeds=text.mean(1),
        height=64,
        width=64,
        num_inference_steps=8,
        output_type="latent",
        generator=torch.Generator().manual_seed(seed),
        **more,
    ).images


@every_method
def test_an_exception_in_a_callback(method: Any) -> None:
    pipe, _ = flux_pipeline()
    plain = generate(pipe)
    with accelerate(pipe, method) as run:
        fresh = generate(pipe)
        assert not torch.equal(fresh, plain)

        def callback(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if step == 4:
                raise Stop
            return tensors

        run.trace.clear()
        with pytest.raises(Stop):
            generate(pipe, seed=5, callback_on_step_end=callback)
        assert any(not all(c.computed) for c in run.trace.calls), "it stopped while steps were being skipped"
        assert torch.equal(generate(pipe), fresh)
    assert torch.equal(generate(pipe), plain)


@every_method
@pytest.mark.parametrize("block", [0, 2, -1])
def test_an_abort_inside_a_block(method: Any, block: int) -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    plain = pipe([0], guidance="separate")
    with accelerate(pipe, method) as run:
        fresh = pipe([0], guidance="separate")
        calls = 0

        def abort(module: Any, args: Any, output: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise KeyboardInterrupt

        handle = pipe.transformer.blocks[block].register_forward_hook(abort)
        with pytest.raises(KeyboardInterrupt):
            pipe([5], guidance="separate")
        handle.remove()
        assert not run._conductor.parts[0]._branches, "what was remembered is freed at once"
        assert torch.equal(pipe([0], guidance="separate"), fresh)
    assert torch.equal(pipe([0], guidance="separate"), plain)


@pytest.mark.parametrize("block", [0, 2, 3])
def test_a_nan_from_a_block_is_never_remembered(block: int) -> None:
    method = GatedTaylor(threshold=1e6, gate="paper", warmup=3)
    pipe = TinyPipeline("WanTransformer3DModel")
    with accelerate(pipe, method) as run:
        fresh = pipe([0, 1])
        calls = 0

        def poison(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor | None:
            nonlocal calls
            calls += 1
            return torch.cat([torch.full_like(output[:1], torch.nan), output[1:]]) if calls == 3 else None

        handle = pipe.transformer.blocks[block].register_forward_hook(poison)
        run.trace.clear()
        broken = pipe([5, 1])
        handle.remove()
        assert broken[0].isnan().any() and not broken[1].isnan().any(), "only the poisoned sample is lost"
        decided = [c.computed for c in run.trace.calls]
        assert all(row[0] for row in decided), "nothing is ever forecast for the poisoned sample"
        assert any(not row[1] for row in decided), "its neighbour goes on as if alone"
        assert any("not finite" in w for w in run.trace.warnings)
        assert torch.equal(pipe([0, 1]), fresh)


def test_a_nan_in_what_the_gate_sees_is_computed() -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    calls = 0

    def poison(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        nonlocal calls
        calls += 1
        return torch.full_like(output, torch.nan) if calls == 5 else None

    with accelerate(pipe, GatedTaylor(threshold=1e6, gate="paper", warmup=3)) as run:
        pipe.transformer.blocks[0].register_forward_hook(poison)
        pipe([0])
    assert run.trace.calls[4].computed == [True]
    assert run.trace.calls[4].reason == ["not finite"]


def test_another_batch_and_another_number_of_steps() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    method = IntervalTaylor(interval=3, warmup=2)
    asked = [([0], 8), ([1, 2, 3], 8), ([0], 11), ([0, 1], 5), ([0], 8)]
    with accelerate(pipe, method):
        together = [pipe(seeds, steps=steps) for seeds, steps in asked]
    for (seeds, steps), latents in zip(asked, together, strict=True):
        with accelerate(pipe, method):
            assert torch.equal(pipe(seeds, steps=steps), latents)


def test_another_shape_in_the_middle_of_a_run_begins_anew() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    model = pipe.transformer
    with accelerate(model, IntervalTaylor(interval=9, warmup=2)) as run:
        for step, t in enumerate((900.0, 800.0, 700.0, 600.0, 500.0, 400.0)):
            x = noise(pipe.model, [0])
            x = x if step < 3 else torch.cat([x, x], dim=1)
            pipe.model.call(model, x, torch.tensor([t]), texts([0]))
    assert [c.computed[0] for c in run.trace.calls] == [True, True, False, True, True, False]
    assert run.trace.calls[3].reason == ["img_ids changed"]


@needs_fork
def test_a_killed_run_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, told = tmp_path / "disk", tmp_path / "told"
    disk.mkdir()
    monkeypatch.chdir(disk)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))

    def killed() -> None:
        pipe = TinyPipeline("FluxTransformer2DModel")
        with accelerate(pipe, GatedTaylor(threshold=1e6, warmup=1)):
            pipe(steps=8, callback=lambda step, _: os.kill(os.getpid(), signal.SIGKILL) if step == 5 else None)

    with Forked(killed, told, environment={"HOME": str(disk), "TMPDIR": str(disk)}) as ended:
        assert ended.wait() == -signal.SIGKILL, ended.err
    assert not [path for path in disk.rglob("*") if path.is_file()]
