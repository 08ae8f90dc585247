"""What the machinery costs and what skipping saves, in processor time, on a stack of 256 tokens x 256 wide.

Random weights: time does not depend on them, and no fidelity is claimed. Processor time, not wall time, so that other
processes of the machine do not count; plain and accelerated runs alternate, and the median of their ratios is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from outpace.accel import GatedTaylor, IntervalTaylor, accelerate

STEPS = 6
PAIRS = 5


class Stack:
    """24 blocks of FLUX's kinds, 256 picture tokens and 16 text tokens, 256 wide."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.scheduler = FlowMatchEulerDiscreteScheduler()
        self.transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=8,
            num_single_layers=16,
            attention_head_dim=64,
            num_attention_heads=4,
            joint_attention_dim=64,
            pooled_projection_dim=64,
            axes_dims_rope=(8, 28, 28),
        ).eval()
        ids = torch.zeros(256, 3)
        ids[:, 1], ids[:, 2] = torch.arange(256) // 16, torch.arange(256) % 16
        self.fixed: dict[str, Any] = {
            "encoder_hidden_states": torch.randn(1, 16, 64),
            "pooled_projections": torch.randn(1, 64),
            "img_ids": ids,
            "txt_ids": torch.zeros(16, 3),
            "return_dict": False,
        }
        self.start = torch.randn(1, 256, 16)

    def __call__(self) -> torch.Tensor:
        latents = self.start
        self.scheduler.set_timesteps(STEPS)
        for t in self.scheduler.timesteps:
            field = self.transformer(hidden_states=latents, timestep=t.expand(1) / 1000, **self.fixed)[0]
            latents = self.scheduler.step(field, t, latents, return_dict=False)[0]
        return latents


def seconds(run: Callable[[], Any]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def ratios(stack: Stack, method: Any) -> tuple[list[float], Any]:
    """Time of an accelerated run over that of the plain run beside it, for each pair."""
    found = []
    stack()
    for pair in range(PAIRS):
        plain = seconds(stack) if pair % 2 else 0.0
        with accelerate(stack, method) as run:
            accelerated = seconds(stack)
        found.append(accelerated / (plain or seconds(stack)))
    return found, run


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["plan", "budget", "paper"])
def test_a_gate_that_always_refuses_costs_at_most_two_percent(gate: str) -> None:
    method = GatedTaylor(threshold=1e-9, gate=gate, warmup=1, cooldown=0, order=1)
    found, run = ratios(Stack(), method)
    assert run.trace.totals()["forecast"] == 0
    print(f"\noverhead with gate={gate}: {median(found) - 1:.2%} ({', '.join(f'{r - 1:.2%}' for r in sorted(found))})")
    assert median(found) <= 1.02


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["none", "paper"])
def test_measured_speed_up_is_at_least_85_percent_of_the_predicted(gate: str) -> None:
    method = (
        IntervalTaylor(interval=4, warmup=1, cooldown=0)
        if gate == "none"
        else GatedTaylor(threshold=1e9, gate="paper", order=1, warmup=1, cooldown=0, max_skips=3)
    )
    found, run = ratios(Stack(), method)
    predicted, measured = run.trace.totals()["predicted_speedup"], 1 / median(found)
    print(f"\n{method.name}: {measured:.2f}x measured, {predicted:.2f}x in blocks: {measured / predicted:.0%}")
    assert predicted > 2.0
    assert measured >= 0.85 * predicted
