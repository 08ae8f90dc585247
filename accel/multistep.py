"""A second-order multistep solver that steps where another scheduler stands: at its noise levels, on its latents.

The pipeline keeps its own scheduler, and with it everything that a pipeline may ask of one: its settings, timesteps and
sigmas however they were given or shifted, what it does to noise and inputs, where a run begins, and what is saved. Only
`step` goes to diffusers' multistep solver. That one is handed the clean picture which the scheduler would have read off
the denoiser's output, so it never has to know how the model is parameterised, and latents of every kind are brought
into one space for it: divided by alpha + sigma they are those of a rectified flow at sigma / (alpha + sigma), where
noise without any signal is a number like any other.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import torch

from .levels import schedule
from .prediction import Prediction

NEAREST_NOISE = 1.0 - 5e-7
"""Largest flow sigma that UniPC is given: it divides by differences of log(alpha), which pure noise has none of."""


class Multistep:
    """Steps in the place of one scheduler.

    Args:
        own: the scheduler whose levels are followed.
        prediction: how it reads the denoiser's output.
        solver: "dpm++" or "unipc".
    """

    def __init__(self, own: Any, prediction: Prediction, solver: str) -> None:
        from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

        cls = UniPCMultistepScheduler if solver == "unipc" else DPMSolverMultistepScheduler
        self.own, self.prediction = own, prediction
        self.pairs: list[tuple[float, float]] = []
        """(alpha, sigma) before each step and after the last."""
        self.place = 0
        """The step to be taken next."""
        self.follows = True
        """False where the scheduler steps itself, as on levels that the solver does not know."""
        self._places: list[int] = []
        """For each step, the solver's own number of it."""
        self.solver: Any = cls(
            solver_order=2, prediction_type="sample", use_flow_sigmas=True, final_sigmas_type="zero", thresholding=False
        )

    @property
    def sigmas(self) -> list[float]:
        """Sigma of the rectified flow before each step and after the last."""
        return [sigma / (alpha + sigma) for alpha, sigma in self.pairs]

    def begin(self, place: int) -> None:
        """Take the scheduler's levels; the next step is `place`, and nothing is remembered of earlier ones."""
        self.prediction = Prediction.of(self.own) or self.prediction
        self.pairs = [self.prediction.pair(number) for number in schedule(self.own) or []]
        self.place = place
        self.solver.set_timesteps(max(2, len(self.pairs) - 1))
        most = NEAREST_NOISE if hasattr(self.solver, "last_sample") else 1.0
        sigmas = self.sigmas
        # Schedulers with stages visit a level twice in a row; the solver knows it once.
        moves = [after != before for before, after in pairwise(sigmas)]
        self._places = list(accumulate(map(int, moves), initial=0))
        self.solver.sigmas = torch.tensor(
            [min(sigma, most) for sigma, new in zip(sigmas, [True, *moves], strict=True) if new]
        )
        count = len(self.solver.sigmas) - 1
        self.solver.timesteps = torch.arange(count, 0, -1).float()

    def step(
        self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, **others: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step from `place`: the latents after it, and the clean picture that was predicted.

        Args:
            others: what else the scheduler's own step would be given; of no use here.
        """
        (alpha, sigma), (next_alpha, next_sigma) = self.pairs[self.place : self.place + 2]
        if model_output.shape[1:2] != sample.shape[1:2] and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]  # the rest is a variance, which an ODE does not use
        clean = self.clipped(self.prediction.read(alpha, sigma, sample, model_output))
        if (alpha, sigma) == (next_alpha, next_sigma):
            latents = sample.float()
        else:
            self.solver._step_index = self._places[self.place]
            flow = sample.float() / (alpha + sigma)
            latents = self.solver.step(clean, None, flow, return_dict=False)[0] * (next_alpha + next_sigma)
        self.place += 1
        return latents.to(model_output.dtype), clean.to(model_output.dtype)

    def clipped(self, clean: torch.Tensor) -> torch.Tensor:
        """The clean picture within the bounds that the scheduler sets for it."""
        config = self.own.config
        if config.get("thresholding"):
            return self.own._threshold_sample(clean)
        if config.get("clip_sample") and type(self.own).__name__ in CLIPPING:
            return clean.clamp(-config["clip_sample_range"], config["clip_sample_range"])
        return clean


CLIPPING = ("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler")
"""Schedulers that do what `clip_sample` says; CogVideoX's have the setting and leave it alone."""
