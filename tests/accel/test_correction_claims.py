"""Correction brings latents nearer to the plain ones, on dit under twelve schedulers; where it does not is written."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch

import outpace
from outpace.accel import IntervalTaylor, accelerate

pytestmark = pytest.mark.slow

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "PNDM": ("PNDMScheduler", {}),
    "PNDM without Runge-Kutta": ("PNDMScheduler", {"skip_prk_steps": True}),
    "DPM++": ("DPMSolverMultistepScheduler", {}),
    "DPM++, Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++, exponential": ("DPMSolverMultistepScheduler", {"use_exponential_sigmas": True}),
    "DPM++, singlestep": ("DPMSolverSinglestepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "UniPC, Karras": ("UniPCMultistepScheduler", {"use_karras_sigmas": True}),
    "UniPC, exponential": ("UniPCMultistepScheduler", {"use_exponential_sigmas": True}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "SASolver": ("SASolverScheduler", {}),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "every 2nd, order 1": {"interval": 2, "order": 1},
    "every 3rd, order 1": {"interval": 3, "order": 1},
    "every 3rd, order 2": {"interval": 3, "order": 2},
    "every 4th, order 1": {"interval": 4, "order": 1},
}


def gains(run: Callable[[], torch.Tensor], pipe: Any, plain: torch.Tensor, settings: dict[str, Any]) -> list[float]:
    """Median PSNR to the plain pipeline's, not corrected and corrected."""
    medians = []
    for correct in (False, True):
        with accelerate(pipe, IntervalTaylor(**settings, correct=correct)):
            errors = (run() - plain).flatten(1).square().mean(1).clamp_min(1e-12)
        medians.append(statistics.median((-10.0 * errors.log10()).tolist()))
    return medians


LOSES = {
    ("DDIM", "every 2nd, order 1"): 2.1,
    ("PNDM", "every 2nd, order 1"): 1.7,
    ("DEIS", "every 2nd, order 1"): 1.2,
    ("DPM++", "every 2nd, order 1"): 0.7,
    ("UniPC", "every 2nd, order 1"): 0.8,
    ("DPM++, exponential", "every 4th, order 1"): 1.8,
    ("UniPC, exponential", "every 4th, order 1"): 1.3,
}
"""Where correction still loses, by so many dB: see docs/how_it_works.md."""


def cases() -> list[Any]:
    """Every scheduler under every setting; those known to lose are expected to."""
    return [
        pytest.param(
            name,
            setting,
            marks=[pytest.mark.xfail(reason=f"{LOSES[name, setting]} dB")] if (name, setting) in LOSES else [],
        )
        for name in SCHEDULERS
        for setting in SETTINGS
    ]


@pytest.mark.parametrize(("name", "setting"), cases())
def test_corrected_is_not_further_from_plain_on_dit(name: str, setting: str) -> None:
    pipe = outpace.load_pocket("dit")
    cls, changes = SCHEDULERS[name]
    own = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
    pipe.scheduler = getattr(diffusers, cls).from_config(own, **changes)

    def run() -> torch.Tensor:
        torch.manual_seed(0)
        seeds = [torch.Generator().manual_seed(100 + i) for i in range(16)]
        labels = [i % 10 for i in range(16)]
        made = pipe(labels, guidance_scale=1.0, num_inference_steps=30, output_type="np", generator=seeds)
        return torch.as_tensor(made.images)

    without, corrected = gains(run, pipe, run(), SETTINGS[setting])
    assert corrected >= without - 0.3, f"{without:.1f} dB without, {corrected:.1f} dB corrected"


@pytest.mark.parametrize(("pocket", "least"), [("flux", 1.0), ("wan", 1.0)])
def test_flows_gain(pocket: str, least: float) -> None:
    pipe = outpace.load_pocket(pocket)
    prompts = ["a blue circle above a yellow circle on black", "a red square left of a green square on white"]
    call: dict[str, Any] = {"height": 48, "width": 48, "max_sequence_length": 12}
    if pocket == "wan":
        call = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 8, "guidance_scale": 3.0}

    def run() -> torch.Tensor:
        seeds = [torch.Generator().manual_seed(100 + i) for i in range(2)]
        return torch.as_tensor(pipe(prompts, num_inference_steps=30, output_type="np", generator=seeds, **call)[0])

    plain = run()
    for settings in ({"interval": 2, "order": 1}, {"interval": 3, "order": 1}, {"interval": 3, "order": 2}):
        without, corrected = gains(run, pipe, plain, settings)
        assert corrected >= without + least, f"{settings}: {without:.1f} dB without, {corrected:.1f} dB corrected"
