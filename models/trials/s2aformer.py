"""S2AFormer's claim in small: digits by strip attention, beside full attention and an average of all positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layers.pictures import ChannelNorm
from ..s2aformer import PerceptionBlock, S2AFormerConfig, StripAttention
from .digits import digit_accuracy
from .trial import Trial

STEPS, WIDTH, HEADS, BLOCKS = 300, 32, 4, 2


class Average(nn.Module):
    """The mean of all positions at every position, in the place of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.value(x_BCYX).mean((2, 3), keepdim=True).expand_as(x_BCYX)


class Nothing(nn.Module):
    """Zeros in the place of attention."""

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return torch.zeros_like(x_BCYX)


def model(attention: Callable[[], nn.Module]) -> nn.Module:
    """Two blocks on patches of 2 x 2, with this for their attention."""
    blocks = [PerceptionBlock(WIDTH, HEADS, 1, S2AFormerConfig(expansion=2)) for _ in range(BLOCKS)]
    for block in blocks:
        block.attention[1] = attention()
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10))
    return nn.Sequential(nn.Conv2d(1, WIDTH, 2, 2), *blocks, ChannelNorm(WIDTH), pooled)


def arm(attention: Callable[[], nn.Module]) -> Callable[[int], float]:
    """Training one of the models."""
    return lambda seed: digit_accuracy(lambda: model(attention), seed, steps=STEPS)


TRIAL = Trial(
    claim="with one channel a head and a quarter of the keys, attention names digits better than what is cheaper",
    measure="share of held-out digits named right",
    higher_is_better=True,
    arms={
        "strip attention": arm(lambda: StripAttention(WIDTH, HEADS, 2)),
        "full attention": arm(lambda: StripAttention(WIDTH, HEADS, 1, key_width=WIDTH // HEADS)),
        "average of all positions": arm(Average),
        "no attention": arm(Nothing),
    },
    against=("average of all positions", "no attention"),
    task=f"scikit-learn's digits in patches of 2 x 2, {BLOCKS} blocks of width {WIDTH}, {STEPS} steps of 64",
)
