"""ControlNet residuals are added between blocks; a skipped step must neither lose them nor add them twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from closeness import assert_same_but_rounding
from diffusers import FirstBlockCacheConfig
from tiny import TinyPipeline, noise, texts

from outpace.accel import IntervalTaylor, accelerate

SEEDS = [0, 1]


def residuals(pipe: TinyPipeline, count: int, strength: float = 1.0) -> list[torch.Tensor]:
    """`count` residuals in the shape of the picture's tokens."""
    rows = 4 * 4  # every tiny picture has this many tokens
    make = torch.Generator().manual_seed(7)
    return [strength * torch.randn(len(SEEDS), rows, 16, generator=make) for _ in range(count)]


def controls(cls: str, pipe: TinyPipeline, strength: float = 1.0) -> dict[str, Any]:
    """The residuals of a call, as each model wants them."""
    if cls in ("FluxTransformer2DModel", "ChromaTransformer2DModel"):
        return {
            "controlnet_block_samples": residuals(pipe, 2, strength),
            "controlnet_single_block_samples": residuals(pipe, 3, strength),
        }
    if cls == "SD3Transformer2DModel":
        return {"block_controlnet_hidden_states": residuals(pipe, 4, strength)}
    if cls == "SanaTransformer2DModel":
        # Sana's tiny picture is not patched: 8 x 8 tokens.
        make = torch.Generator().manual_seed(7)
        shape = (len(SEEDS), 64, 16)
        return {"controlnet_block_samples": [strength * torch.randn(shape, generator=make) for _ in range(3)]}
    return {"controlnet_block_samples": residuals(pipe, 2, strength)}


CONTROLLED = [
    "FluxTransformer2DModel",
    "QwenImageTransformer2DModel",
    "SD3Transformer2DModel",
    "SanaTransformer2DModel",
    "ChromaTransformer2DModel",
    "BriaTransformer2DModel",
]


def call(pipe: TinyPipeline, **more: Any) -> torch.Tensor:
    """One call at a time that is none of the schedule's, always with the same inputs."""
    t = torch.full((len(SEEDS),), 620.0)
    return pipe.model.call(pipe.transformer, noise(pipe.model, SEEDS), t, texts(SEEDS), **more)


@pytest.mark.parametrize("cls", CONTROLLED)
def test_residuals_are_neither_lost_nor_added_twice(cls: str) -> None:
    pipe = TinyPipeline(cls)
    control = controls(cls, pipe)
    plain = call(pipe, **control)
    assert (call(pipe) - plain).abs().max() > 0.05, "the residuals matter"
    with accelerate(pipe, IntervalTaylor(interval=8, order=0, warmup=1, first=7, cooldown=0)) as run:
        pipe.scheduler.set_timesteps(5)
        for moment in pipe.scheduler.timesteps:
            out = call(pipe, **control)
            pipe.scheduler.step(out, moment, torch.zeros_like(out))
            assert_same_but_rounding(out, plain)
    assert run.trace.totals()["forecast"] == len(SEEDS) * 4


@pytest.mark.parametrize("end", ["gone", "zero"])
@pytest.mark.parametrize("cls", CONTROLLED)
def test_the_end_of_control_is_computed(cls: str, end: str) -> None:
    """Pipelines end control by leaving the residuals out or by scaling them to zero."""
    pipe = TinyPipeline(cls)
    with accelerate(pipe, IntervalTaylor(interval=8, order=0, warmup=1, first=7, cooldown=0)) as run:
        pipe.scheduler.set_timesteps(6)
        for step, moment in enumerate(pipe.scheduler.timesteps):
            after = controls(cls, pipe, strength=0.0) if end == "zero" else {}
            out = call(pipe, **(controls(cls, pipe) if step < 3 else after))
            pipe.scheduler.step(out, moment, torch.zeros_like(out))
    assert [c.computed[0] for c in run.trace.calls] == [True, False, False, True, False, False]
    assert run.trace.calls[3].reason[0].endswith("changed")
    assert_same_but_rounding(out, call(pipe))


def test_first_block_cache_of_diffusers_adds_them_twice_on_flux() -> None:
    """The comparison behind the claim: its cached residual holds the additions that the loop then makes again."""
    pipe = TinyPipeline("FluxTransformer2DModel")
    control = controls("FluxTransformer2DModel", pipe)
    plain = call(pipe, **control)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e6))
    with pipe.transformer.cache_context("cond"):
        errors = [float((call(pipe, **control) - plain).abs().max()) for _ in range(3)]
    assert errors[0] <= 1e-5
    if max(errors[1:]) <= 1e-5:
        pytest.skip("this version of diffusers gets it right; say so in the documentation")
    assert min(errors[1:]) > 0.01
