"""The diffusion of LaDiNE: labels become noise around a mean that the picture gives, and come back in few steps.

Legend: a_t = 1 - b_t, abar_t their product, mu the prior mean; index 0 is the first and least noised time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput

from ...errors import ConfigError

PREDICTIONS = ("epsilon", "sample")


@dataclass
class LadineSchedulerOutput(BaseOutput):
    """One step back."""

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor
    """The clean label as it looks from here."""


class LadineScheduler(SchedulerMixin, ConfigMixin):
    """Diffusion with a shifted mean: y_t = sqrt(abar_t) y_0 + (1 - sqrt(abar_t)) mu + sqrt(1 - abar_t) eps.

    Source: arXiv:2310.15952, section III-C; the shifted mean is CARD's, arXiv:2206.07275. Steps that leave times out
    are those of DDIM (Song et al., 2020, arXiv:2010.02502) with the mean carried along, which the paper names as future
    work. With every time and `eta` 1 a step is the paper's posterior, exactly.

    Args:
        beta_start, beta_end: for 1000 times; fewer scale them up, so that the last time is noise at any number.
        eta: 1 draws as much fresh noise as the posterior has, 0 none.
        prediction_type: "epsilon": the model sees the noise, as in the paper. "sample": it sees the clean label. At the
            last time a label is its noise but for half a percent, so that errors of the noise come back two hundred
            times as large in the label; those of a label do not.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        eta: float = 1.0,
        prediction_type: str = "epsilon",
    ) -> None:
        if num_train_timesteps < 20:
            raise ConfigError(f"{num_train_timesteps} times; fewer than 20 steps of noise are too coarse")
        if not 0.0 <= eta <= 1.0:
            raise ConfigError(f"eta is {eta}; it goes from 0 (no fresh noise) to 1 (that of the posterior)")
        if prediction_type not in PREDICTIONS:
            raise ConfigError(f"prediction_type '{prediction_type}' is none of {', '.join(PREDICTIONS)}")
        scale = 1000 / num_train_timesteps
        self.betas = torch.linspace(scale * beta_start, scale * beta_end, num_train_timesteps, dtype=torch.float64)
        self.alphas_cumprod = torch.cumprod(1 - self.betas, 0)
        self.init_noise_sigma = 1.0
        self.set_timesteps(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Spread `num_inference_steps` over all times, the noisiest and the cleanest among them.

        Raises: ConfigError for less than one step, or more than there are times.
        """
        times = self.config["num_train_timesteps"]
        if not 1 <= num_inference_steps <= times:
            raise ConfigError(f"{num_inference_steps} steps; this diffusion takes 1 to {times}")
        self.num_inference_steps = num_inference_steps
        chosen = torch.linspace(times - 1, 0, num_inference_steps, dtype=torch.float64).round().long()
        self.timesteps = chosen.to(device) if device is not None else chosen

    def scale_model_input(self, sample: torch.Tensor, timestep: int | None = None) -> torch.Tensor:
        return sample

    def add_noise(
        self, original: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, mean: torch.Tensor
    ) -> torch.Tensor:
        """The forward process in one go, a time for each row."""
        kept = self.alphas_cumprod.to(original.device)[timesteps][:, None].to(original.dtype)
        return kept.sqrt() * original + (1 - kept.sqrt()) * mean + (1 - kept).sqrt() * noise

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int,
        sample: torch.Tensor,
        mean: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> LadineSchedulerOutput:
        """From `timestep` to the next of `timesteps`; after the last, to the clean label.

        Args:
            model_output: what the model sees in `sample`, the noise or the clean label.
            mean: the prior mean.
            noise: what is drawn afresh; not needed where eta is 0 or at the last time.

        Raises: ConfigError where noise is needed and not given.
        """
        times = self.timesteps.tolist()
        place = times.index(int(timestep))
        kept = float(self.alphas_cumprod[int(timestep)])
        if self.config["prediction_type"] == "sample":
            clean = model_output
            seen = (sample - (1 - kept**0.5) * mean - kept**0.5 * clean) / (1 - kept) ** 0.5
        else:
            seen = model_output
            clean = (sample - (1 - kept**0.5) * mean - (1 - kept) ** 0.5 * seen) / kept**0.5
        if place + 1 == len(times):
            return LadineSchedulerOutput(prev_sample=clean, pred_original_sample=clean)
        later = float(self.alphas_cumprod[times[place + 1]])
        variance = self.config["eta"] ** 2 * (1 - later) / (1 - kept) * (1 - kept / later)
        moved = later**0.5 * clean + (1 - later**0.5) * mean + (1 - later - variance) ** 0.5 * seen
        if variance > 0:
            if noise is None:
                raise ConfigError("a step with eta above 0 draws noise; give it")
            moved = moved + variance**0.5 * noise
        return LadineSchedulerOutput(prev_sample=moved, pred_original_sample=clean)
