"""Modular pipelines of diffusers: identical at threshold 0, forecast, and branches that keep the names of a guider."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeGuidance, SkipLayerGuidance
from diffusers.hooks import LayerSkipConfig
from tiny_models import SPECIMENS, WIDTH

from outpace.accel import GatedTaylor, IntervalTaylor, accelerate

STEPS = 8


def numbers(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def denoising(blocks: Any, **components: Any) -> Any:
    """A modular pipeline of what lies between text encoder and decoder."""
    for name in set(blocks.sub_blocks) - {"denoise"}:
        blocks.sub_blocks.pop(name)
    pipe = blocks.init_pipeline()
    pipe.update_components(**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def flux() -> Any:
    from diffusers.modular_pipelines import FluxAutoBlocks

    transformer = SPECIMENS["FluxTransformer2DModel"].build(in_channels=64)
    return denoising(FluxAutoBlocks(), transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler())


def wan(guider: Any) -> Any:
    from diffusers.modular_pipelines import WanBlocks

    transformer = SPECIMENS["WanTransformer3DModel"].build(in_channels=16, out_channels=16)
    scheduler = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    return denoising(WanBlocks(), transformer=transformer, scheduler=scheduler, guider=guider)


def call(pipe: Any) -> torch.Tensor:
    given: dict[str, Any] = {
        "prompt_embeds": numbers(1, 5, WIDTH, seed=0),
        "num_inference_steps": STEPS,
        "height": 32,
        "width": 32,
        "generator": torch.Generator().manual_seed(3),
    }
    if "Flux" in type(pipe).__name__:
        given["pooled_prompt_embeds"] = numbers(1, WIDTH, seed=1)
    else:
        given |= {"negative_prompt_embeds": numbers(1, 5, WIDTH, seed=2), "num_frames": 5}
    return pipe(**given, output="latents")


def skips() -> LayerSkipConfig:
    return LayerSkipConfig([1], fqn="blocks")


GUIDERS: dict[str, tuple[Any, Counter[str]]] = {
    "CFG": (lambda: ClassifierFreeGuidance(3.0), Counter(pred_cond=8, pred_uncond=8)),
    "CFG that stops": (lambda: ClassifierFreeGuidance(3.0, stop=0.5), Counter(pred_cond=8, pred_uncond=4)),
    "CFG that starts": (lambda: ClassifierFreeGuidance(3.0, start=0.25), Counter(pred_cond=8, pred_uncond=6)),
    "APG that stops": (
        lambda: AdaptiveProjectedGuidance(guidance_scale=3.0, adaptive_projected_guidance_momentum=0.5, stop=0.5),
        Counter(pred_cond=8, pred_uncond=4),
    ),
    "SLG that stops": (
        lambda: SkipLayerGuidance(
            3.0, skip_layer_config=skips(), skip_layer_guidance_start=0.0, skip_layer_guidance_stop=0.9
        ),
        Counter(pred_cond=8, pred_uncond=8, pred_cond_skip=6),
    ),
}
"""Guiders with the number of calls that each prediction takes."""


def test_a_modular_flux_is_identical_at_threshold_0_and_forecast() -> None:
    pipe = flux()
    plain = call(pipe)
    with accelerate(pipe, GatedTaylor(threshold=0.0)):
        assert torch.equal(call(pipe), plain)
    with accelerate(pipe, IntervalTaylor(interval=2, warmup=1)) as run:
        made = call(pipe)
    totals = run.trace.totals()
    assert totals["forecast"] > 0 and totals["samples"] == STEPS
    assert made.isfinite().all() and not torch.equal(made, plain)
    assert torch.equal(call(pipe), plain)


@pytest.mark.parametrize("name", GUIDERS)
def test_branches_keep_the_names_of_a_guider(name: str) -> None:
    make, expected = GUIDERS[name]
    pipe = wan(make())
    before = dict(vars(pipe.guider))
    plain = call(pipe)
    with accelerate(pipe, GatedTaylor(threshold=0.0)) as run:
        assert torch.equal(call(pipe), plain)
    assert Counter(c.branch for c in run.trace.calls) == expected
    with accelerate(pipe, IntervalTaylor(interval=2, warmup=1)) as run:
        made = call(pipe)
    forecast = Counter(c.branch for c in run.trace.calls if not all(c.computed))
    assert set(forecast) == set(expected), "a prediction was never forecast"
    assert not any("changed" in reason for c in run.trace.calls for reason in c.reason)
    assert made.isfinite().all()
    assert vars(pipe.guider).keys() == before.keys()
    assert torch.equal(call(pipe), plain)


def test_a_guider_that_was_exchanged_is_followed_from_the_next_run_on() -> None:
    pipe = wan(ClassifierFreeGuidance(3.0))
    with accelerate(pipe, GatedTaylor(threshold=0.0)) as run:
        call(pipe)
        first = pipe.guider
        pipe.update_components(guider=GUIDERS["SLG that stops"][0]())
        call(pipe)
        names = Counter(c.branch for c in run.trace.calls if c.run == run.trace.calls[-1].run)
        assert names == GUIDERS["SLG that stops"][1]
        assert "prepare_models" not in vars(first)
    assert "prepare_models" not in vars(pipe.guider)
