"""What a denoiser's output means: from an output to the clean picture it predicts, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from .levels import EXPLODING, FLOW, LARGEST_ASINH, predicts_flow, space_of

Linear = TypeVar("Linear", float, torch.Tensor)

KINDS = ("flow", "epsilon", "v_prediction", "sample")


@dataclass(frozen=True, slots=True)
class Prediction:
    """How a scheduler reads the output: x = alpha * clean + sigma * noise, and what of these is predicted.

    Args:
        kind: one of KINDS.
        space: how the latents are scaled, see levels.py.
        sign: -1 where the output is predicted with the sign turned round.
    """

    kind: str
    space: str
    sign: float = 1.0

    @staticmethod
    def of(scheduler: Any) -> Prediction | None:
        """The parameterisation of `scheduler`, or None where it is not one of those known here."""
        config, space = scheduler.config, space_of(scheduler)
        if space is None:
            return None
        # A scheduler that only knows flows does not say what is predicted.
        kind = config.get("prediction_type", "flow" if predicts_flow(scheduler) else "epsilon")
        kind = "flow" if kind == "flow_prediction" else kind
        sign = -1.0 if config.get("invert_sigmas") else 1.0
        return Prediction(kind, space, sign) if kind in KINDS else None

    def pair(self, number: float) -> tuple[float, float]:
        """(alpha, sigma) at what the scheduler's own schedule writes down: sigma of a flow, else sigma / alpha."""
        if self.space == FLOW:
            return 1.0 - number, number
        if self.space == EXPLODING:
            return 1.0, number
        if math.isinf(number):
            return 0.0, 1.0
        alpha = 1.0 / math.sqrt(1.0 + number * number)
        return alpha, number * alpha

    def scales(self, u: float) -> tuple[float, float]:
        """(alpha, sigma) at noise level `u` as the clock gives it."""
        return self.pair(u if self.space == FLOW else math.sinh(u * LARGEST_ASINH))

    def read(self, alpha: float, sigma: float, sample: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The clean picture that `output` predicts from `sample`, in float32. Shapes: both the same, any."""
        return self._read(alpha, sigma, sample.float(), output.float())

    def _read(self, alpha: float, sigma: float, sample: Linear, output: Linear) -> Linear:
        output = self.sign * output
        if self.kind == "flow":
            return sample - sigma * output
        if self.kind == "epsilon":
            return (sample - sigma * output) / max(alpha, 1e-8)
        if self.kind == "sample":
            return self.sign * output
        norm = alpha * alpha + sigma * sigma if self.space == EXPLODING else 1.0
        return (alpha * sample - sigma * math.sqrt(norm) * output) / norm

    def clean(self, u: float, sample: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The clean picture that `output` predicts from `sample` at noise level `u`, in float32."""
        return self.read(*self.scales(u), sample, output)

    def output(self, u: float, sample: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """The output that predicts `clean` from `sample`: the inverse of `clean`."""
        return self._output(u, sample.float(), clean.float())

    def _output(self, u: float, sample: Linear, clean: Linear) -> Linear:
        alpha, sigma = self.scales(u)
        sigma = max(sigma, 1e-8)
        if self.kind == "flow":
            return self.sign * (sample - clean) / sigma
        if self.kind == "epsilon":
            return (sample - alpha * clean) / sigma
        if self.kind == "sample":
            return clean
        norm = alpha * alpha + sigma * sigma if self.space == EXPLODING else 1.0
        return (alpha * sample - norm * clean) / (sigma * math.sqrt(norm))

    def kept(self, u: float, to: float) -> tuple[float, float]:
        """What an output that stays as it is predicts at noise level `to`: so much of the latents at `u`, read there as
        those at `to`, and so much of the clean picture at `u`."""
        scales = self.scales(to)
        return (
            self._read(*scales, 1.0, self._output(u, 1.0, 0.0)),
            self._read(*scales, 0.0, self._output(u, 0.0, 1.0)),
        )

    def largest_gain(self, u: float) -> float:
        """The most that the predicted picture is taken to move with the sample: as where the output stays as it is."""
        alpha, _ = self.scales(u)
        kept = {"flow": 1.0, "epsilon": 1.0 / max(alpha, 1e-3)}.get(self.kind, 0.0)
        return max(kept, self.gain(u))

    def carried(self, gain: torch.Tensor, u: float, to: float) -> torch.Tensor:
        """The gain at noise level `to` where it is `gain` at `u`: that of the Wiener filter for the same variance."""
        (alpha, sigma), (alpha_to, sigma_to) = self.scales(u), self.scales(to)
        alpha, alpha_to = max(alpha, 1e-4), max(alpha_to, 1e-4)
        variance = gain * sigma * sigma / (alpha * (1.0 - alpha * gain).clamp_min(1e-6))
        found = alpha_to * variance / (alpha_to * alpha_to * variance + sigma_to * sigma_to).clamp_min(1e-12)
        return found.clamp(0.0, self.largest_gain(to))

    def gain(self, u: float) -> float:
        """How much the predicted picture moves with the sample, for Gaussian data of unit variance (Wiener filter)."""
        alpha, sigma = self.scales(u)
        return alpha / (alpha * alpha + sigma * sigma)
