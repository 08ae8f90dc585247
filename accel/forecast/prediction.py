"""What a denoiser's output means: from an output to the clean picture it predicts, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ..clock import LARGEST_ASINH, is_flow

VARIANCE_PRESERVING = ("DDIM", "DPMSolver", "UniPC", "DEIS", "SASolver", "PNDM", "IPNDM")
"""Beginnings of the names of diffusers' schedulers whose samples are alpha * picture + sigma * noise."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """How a scheduler reads the output: x = alpha * clean + sigma * noise, and what of these is predicted.

    Args:
        kind: "flow", "epsilon", "v_prediction" or "sample".
    """

    kind: str

    @staticmethod
    def of(scheduler: Any) -> Prediction | None:
        """The parameterisation of `scheduler`, or None where it is not one of those known here."""
        if is_flow(scheduler):
            return Prediction("flow")
        kind = scheduler.config.get("prediction_type", "epsilon")
        known = type(scheduler).__name__.startswith(VARIANCE_PRESERVING)
        return Prediction(kind) if known and kind in ("epsilon", "v_prediction", "sample") else None

    def scales(self, u: float) -> tuple[float, float]:
        """(alpha, sigma) at noise level `u` as the clock gives it."""
        if self.kind == "flow":
            return 1.0 - u, u
        ratio = math.sinh(u * LARGEST_ASINH)
        alpha = 1.0 / math.sqrt(1.0 + ratio * ratio)
        return alpha, ratio * alpha

    def clean(self, u: float, sample: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The clean picture that `output` predicts from `sample`, in float32. Shapes: both the same, any."""
        alpha, sigma = self.scales(u)
        sample, output = sample.float(), output.float()
        if self.kind == "flow":
            return sample - sigma * output
        if self.kind == "epsilon":
            return (sample - sigma * output) / max(alpha, 1e-8)
        return alpha * sample - sigma * output if self.kind == "v_prediction" else output

    def output(self, u: float, sample: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """The output that predicts `clean` from `sample`: the inverse of `clean`."""
        alpha, sigma = self.scales(u)
        sample, clean = sample.float(), clean.float()
        sigma = max(sigma, 1e-8)
        if self.kind == "flow":
            return (sample - clean) / sigma
        if self.kind == "epsilon":
            return (sample - alpha * clean) / sigma
        return (alpha * sample - clean) / sigma if self.kind == "v_prediction" else clean

    def gain(self, u: float) -> float:
        """How much the predicted picture moves with the sample, for Gaussian data of unit variance (Wiener filter)."""
        alpha, sigma = self.scales(u)
        return alpha / (alpha * alpha + sigma * sigma)
