"""What a scheduler's numbers mean: signal and noise in the latents before each step, and one scale for all of them.

Latents are alpha * picture + sigma * noise. Schedulers write down one number for the two, in one of three spaces:
"flow" (alpha = 1 - sigma), "preserving" (alpha^2 + sigma^2 = 1, the number is sigma / alpha or alpha^2) and "exploding"
(alpha = 1).
"""

from __future__ import annotations

import math
from typing import Any

import torch

FLOW, PRESERVING, EXPLODING = "flow", "preserving", "exploding"

SPACES: dict[str, str] = {
    "FlowMatchEulerDiscreteScheduler": FLOW,
    "FlowMatchHeunDiscreteScheduler": FLOW,
    "LTXEulerAncestralRFScheduler": FLOW,
    "DDIMScheduler": PRESERVING,
    "DDIMParallelScheduler": PRESERVING,
    "DDPMScheduler": PRESERVING,
    "DDPMParallelScheduler": PRESERVING,
    "CogVideoXDDIMScheduler": PRESERVING,
    "CogVideoXDPMScheduler": PRESERVING,
    "DPMSolverMultistepScheduler": PRESERVING,
    "DPMSolverSinglestepScheduler": PRESERVING,
    "UniPCMultistepScheduler": PRESERVING,
    "DEISMultistepScheduler": PRESERVING,
    "SASolverScheduler": PRESERVING,
    "PNDMScheduler": PRESERVING,
    "EulerDiscreteScheduler": EXPLODING,
    "EulerAncestralDiscreteScheduler": EXPLODING,
    "LMSDiscreteScheduler": EXPLODING,
    "HeunDiscreteScheduler": EXPLODING,
}
"""The space of diffusers' schedulers by class. Those for models distilled to few steps are left out: what their
denoisers predict is no direction to follow."""

LARGEST_ASINH = math.asinh(160.0)
"""asinh of the noise-to-signal ratio at which a diffusion starts: 160 covers the usual schedules' 157 and EDM's 80."""

LARGEST_RATIO = 4096.0
"""Noise-to-signal ratio at which the scale ends: schedules rescaled to zero terminal SNR begin without any signal."""


def predicts_flow(scheduler: Any) -> bool:
    """True where the scheduler reads the denoiser's output as a flow."""
    config = scheduler.config
    return (
        "FlowMatch" in type(scheduler).__name__
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
        or any(SPACES.get(cls.__name__) == FLOW for cls in type(scheduler).__mro__)
    )


def is_flow(scheduler: Any) -> bool:
    """True where the scheduler integrates a rectified flow, so that its sigmas run in 0..1."""
    return predicts_flow(scheduler) and not beyond_flow(scheduler)


def beyond_flow(scheduler: Any) -> bool:
    """True where the sigmas that were set are ratios of noise to signal, as Cosmos 2 steps through them."""
    if getattr(scheduler, "num_inference_steps", None) is None:
        return False
    sigmas = getattr(scheduler, "sigmas", None)
    return sigmas is not None and len(sigmas) > 0 and float(torch.as_tensor(sigmas).max()) > 1.0 + 1e-4


def space_of(scheduler: Any) -> str | None:
    """The space that the scheduler's latents lie in, or None where it is not known."""
    config = scheduler.config
    spaces = (SPACES[cls.__name__] for cls in type(scheduler).__mro__ if cls.__name__ in SPACES)
    flow = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    space = FLOW if flow else next(spaces, None)
    return EXPLODING if space == FLOW and beyond_flow(scheduler) else space


def diffusion_level(ratio: float) -> float:
    """Noise level in 0..1 of a noise-to-signal ratio sigma / alpha, on the scale on which errors of epsilon add up.

    An error of the noise prediction moves x / alpha by d(ratio); what remains of that in the picture shrinks by
    1 / sqrt(1 + ratio^2) for data of unit variance. Their product is d(asinh ratio).
    """
    return math.asinh(min(ratio, LARGEST_RATIO)) / LARGEST_ASINH


def numbers(values: Any) -> list[float]:
    """A schedule's values, in one transfer where they lie on a device."""
    return [float(v) for v in (values.tolist() if hasattr(values, "tolist") else values)]


def schedule(scheduler: Any) -> list[float] | None:
    """Sigma of a flow, or sigma / alpha of a diffusion, before each step and after the last.

    Returns: as many numbers as there are timesteps and one more, or None where the scheduler does not say.
    """
    sigmas = getattr(scheduler, "sigmas", None)
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None or len(timesteps) == 0:
        return None
    if sigmas is not None and len(sigmas) >= len(timesteps):
        values = numbers(sigmas[: len(timesteps) + 1])
        if scheduler.config.get("invert_sigmas"):  # Mochi counts from noise at 0 to the picture at 1
            values = [1.0 - value for value in values]
        return values if len(values) > len(timesteps) else [*values, 0.0]
    kept = getattr(scheduler, "alphas_cumprod", None)
    if kept is None:
        return None
    chosen = kept.cpu()[torch.as_tensor(timesteps).long().cpu()].double().tolist()
    last = float(getattr(scheduler, "final_alpha_cumprod", None) or 1.0)
    return [math.sqrt((1.0 - k) / k) if k > 0.0 else math.inf for k in (*chosen, last)]


def noise_levels(scheduler: Any) -> list[float] | None:
    """Noise level in 0..1 before each step and after the last, or None where the scheduler does not say."""
    values = schedule(scheduler)
    return values if values is None or is_flow(scheduler) else [diffusion_level(value) for value in values]
