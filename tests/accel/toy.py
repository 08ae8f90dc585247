"""A denoiser whose answer is known in closed form: data are two narrow clouds at +1 and -1 in every dimension.

Its blocks pass the sample on, and the last one returns the exact flow: forecasting the last block is forecasting the
solution itself, and what remains is the error of the method alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from outpace.accel import FAMILIES, Family, Stack, register_family

SPREAD = 0.3
"""Standard deviation of each cloud."""


class ToyBlock(nn.Module):
    """Passes the sample on, or answers."""

    def __init__(self, answers: bool) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, hidden_states: torch.Tensor, alpha: float, sigma: float, kind: str) -> torch.Tensor:
        if not self.answers:
            return hidden_states
        x, variance = hidden_states.double(), alpha * alpha * SPREAD * SPREAD + sigma * sigma
        sign = torch.tanh(alpha * x / variance)
        clean = sign + alpha * SPREAD * SPREAD / variance * (x - alpha * sign)
        if kind == "flow":
            return ((x - clean) / sigma).to(hidden_states.dtype)
        return ((x - alpha * clean) / sigma).to(hidden_states.dtype)


class ToyTransformer(nn.Module):
    """Answers a flow or an epsilon, as its scheduler reads it."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ToyBlock(answers=i == 3) for i in range(4)])
        flow = "FlowMatch" in type(scheduler).__name__ or bool(scheduler.config.get("use_flow_sigmas"))
        self.kind = "flow" if flow else "epsilon"
        self.alphas_cumprod = None if flow else scheduler.alphas_cumprod

    def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        t = float(timestep)
        if self.alphas_cumprod is None:
            alpha, sigma = 1.0 - t / 1000.0, t / 1000.0
        else:
            kept = float(self.alphas_cumprod[int(t)])
            alpha, sigma = math.sqrt(kept), math.sqrt(1.0 - kept)
        for block in self.blocks:
            hidden_states = block(hidden_states, alpha, sigma, self.kind)
        return hidden_states


class ToyPipeline:
    """A denoising loop over the toy."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.transformer = ToyTransformer(scheduler)

    def __call__(self, latents: torch.Tensor, steps: int = 24, **step: Any) -> torch.Tensor:
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            output = self.transformer(latents, t)
            latents = self.scheduler.step(output, t, latents, return_dict=False, **step)[0]
        return latents


@pytest.fixture
def toy_family() -> Iterator[Family]:
    """The toy's adapter, for as long as a test runs."""
    yield register_family(
        Family(name="toy", transformers=("ToyTransformer",), stacks=(Stack(path="blocks", shared=("kind",)),))
    )
    FAMILIES.remove("toy")


def starts(rows: int, seed: int = 0) -> torch.Tensor:
    """Latents of `rows` samples of 32 dimensions: noise. Shapes: rows 4 8."""
    return torch.randn(rows, 4, 8, generator=torch.Generator().manual_seed(seed))
