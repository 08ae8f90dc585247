"""Between a LEGO model, which is told noise as Karras et al. tell it, and whatever scheduler samples from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ...accel.levels import is_flow
from ...errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One call of the network: what goes in, and what is needed to read its answer."""

    network_input: torch.Tensor
    """The noised picture times c_in."""
    c_noise: torch.Tensor
    noised: torch.Tensor
    """The noised picture as clean + sigma * noise."""
    sigma: float


def check_scheduler(scheduler: Any, sigma_data: float) -> None:
    """Raises: ConfigError for a scheduler that this model's answers cannot be written for."""
    name, kind = type(scheduler).__name__, scheduler.config.get("prediction_type", "epsilon")
    if is_edm(scheduler):
        if kind != "epsilon" or scheduler.config["sigma_data"] != sigma_data:
            raise ConfigError(
                f"{name} has prediction_type '{kind}' and sigma_data {scheduler.config['sigma_data']}; this model "
                f"needs 'epsilon' and {sigma_data}"
            )
    elif is_flow(scheduler) or kind not in ("epsilon", "v_prediction"):
        raise ConfigError(
            f"{name} with prediction_type '{kind}' does not fit this model; take EDMEulerScheduler, "
            "EDMDPMSolverMultistepScheduler, HeunDiscreteScheduler or another for 'epsilon'"
        )


def is_edm(scheduler: Any) -> bool:
    """True where the scheduler scales inputs and reads answers as the network means them."""
    return hasattr(scheduler, "precondition_outputs")


def network_input(scheduler: Any, latents: torch.Tensor, index: int, sigma_data: float) -> Seen:
    """What the network is to see of `latents` at step `index` of the scheduler's."""
    timestep = scheduler.timesteps[index]
    scaled = scheduler.scale_model_input(latents, timestep)
    if is_edm(scheduler):
        sigma = float(scheduler.sigmas[index])
        return Seen(network_input=scaled, c_noise=timestep.to(latents), noised=latents, sigma=sigma)
    if getattr(scheduler, "sigmas", None) is not None:
        sigma = float(scheduler.sigmas[index])
    else:
        kept = float(scheduler.alphas_cumprod[int(timestep)])
        sigma = ((1 - kept) / kept) ** 0.5
    # Schedulers agree on what goes into a network: the noised picture with unit variance where the clean one has it.
    noised = scaled * (1 + sigma**2) ** 0.5
    c_noise = torch.tensor(sigma, dtype=latents.dtype, device=latents.device).log() / 4
    return Seen(network_input=noised / (sigma**2 + sigma_data**2) ** 0.5, c_noise=c_noise, noised=noised, sigma=sigma)


def scheduler_output(scheduler: Any, seen: Seen, answer: torch.Tensor, sigma_data: float) -> torch.Tensor:
    """The network's answer in the terms of the scheduler: as it is, as noise, or as velocity."""
    if is_edm(scheduler):
        return answer
    clean = denoised(seen.noised, answer, seen.sigma, sigma_data)
    noise = (seen.noised - clean) / seen.sigma
    if scheduler.config.get("prediction_type", "epsilon") == "epsilon":
        return noise
    return (noise - seen.sigma * clean) / (1 + seen.sigma**2) ** 0.5


def denoised(noised: torch.Tensor, answer: torch.Tensor, sigma: float, sigma_data: float) -> torch.Tensor:
    """The clean picture D of a network's answer F.

    Source: Karras et al. 2022, arXiv:2206.00364, equation 7 and table 1: c_skip x + c_out F.
    """
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total * noised + sigma * sigma_data / total**0.5 * answer
