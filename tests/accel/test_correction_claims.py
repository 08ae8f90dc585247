"""Correction brings latents nearer to the plain ones, on dit under twelve schedulers, or at least no further."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch

import outpace
from outpace.accel import GatedTaylor, IntervalTaylor, Method, accelerate

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
SETTINGS: dict[str, Callable[[bool], Method]] = {
    "every 2nd, order 1": lambda correct: IntervalTaylor(interval=2, order=1, correct=correct),
    "every 3rd, order 1": lambda correct: IntervalTaylor(interval=3, order=1, correct=correct),
    "every 3rd, order 2": lambda correct: IntervalTaylor(interval=3, order=2, correct=correct),
    "every 4th, order 1": lambda correct: IntervalTaylor(interval=4, order=1, correct=correct),
    "gate at 0.1": lambda correct: GatedTaylor(threshold=0.1, correct=correct),
    "gate at 0.2": lambda correct: GatedTaylor(threshold=0.2, correct=correct),
}


STEPS = (20, 28, 30, 40)
"""Whether a schedule's own errors happen to cancel depends on its number of steps: one alone says little."""


def gains(run: Callable[[], torch.Tensor], pipe: Any, setting: str) -> list[float]:
    """By how many dB each request is nearer to the plain pipeline's for being corrected."""
    plain, found = run(), []
    for correct in (False, True):
        with accelerate(pipe, SETTINGS[setting](correct)):
            errors = (run() - plain).flatten(1).square().mean(1).clamp_min(1e-12)
        found.append(-10.0 * errors.log10())
    return (found[1] - found[0]).tolist()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_corrected_is_not_further_from_plain_on_dit(name: str, setting: str) -> None:
    pipe = outpace.load_pocket("dit")
    cls, changes = SCHEDULERS[name]
    own = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
    pipe.scheduler = getattr(diffusers, cls).from_config(own, **changes)

    told: list[float] = []
    for steps in STEPS:

        def run(steps: int = steps) -> torch.Tensor:
            torch.manual_seed(0)
            seeds = [torch.Generator().manual_seed(100 + i) for i in range(8)]
            made = pipe([*range(8)], guidance_scale=1.0, num_inference_steps=steps, output_type="np", generator=seeds)
            return torch.as_tensor(made.images)

        told += gains(run, pipe, setting)
    assert statistics.median(told) >= -0.3, f"{statistics.median(told):+.2f} dB by correction"


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

    for setting in ("every 2nd, order 1", "every 3rd, order 1", "every 3rd, order 2"):
        gained = statistics.median(gains(run, pipe, setting))
        assert gained >= least, f"{setting}: {gained:+.2f} dB by correction"
