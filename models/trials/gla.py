"""Gated linear attention in small: time on a long input, beside softmax attention."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.linear_attention import gated_linear_attention
from .trial import Trial

TOKENS, HEADS, WIDTH = 16_384, 4, 64


def arm(attention: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Callable[[int], float]:
    """Process time of the faster of two calls."""

    @torch.no_grad()
    def run(seed: int) -> float:
        q, k, v, noise = torch.randn(4, 1, HEADS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))
        gate, seconds = F.logsigmoid(noise) / 16, []
        for _ in range(2):
            started = time.process_time()
            attention(q, k, v, gate)
            seconds.append(time.process_time() - started)
        return min(seconds)

    return run


TRIAL = Trial(
    claim=f"a gated state is faster than causal softmax attention at {TOKENS} tokens on one core",
    measure="process time of a forward pass, seconds",
    higher_is_better=False,
    arms={
        "gate a channel": arm(gated_linear_attention),
        "softmax": arm(lambda q, k, v, _gate: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
        "gate a head": arm(lambda q, k, v, gate: gated_linear_attention(q, k, v, gate[..., 0])),
    },
    against=("softmax",),
    task=f"{HEADS} heads of width {WIDTH}, {TOKENS} tokens, float32; every length: benchmarks/linear_attention_cpu.py",
)
