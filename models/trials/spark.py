"""Spark Transformer in small: units chosen by part of each token, beside all units and a choice by the whole of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.sparsity import statistical_top_k
from ..hybrid import AttentionConfig, HybridConfig, HybridLanguageModel
from ..spark import SparkConfig, SparkFeedForward
from .data import BYTES
from .fit import text_loss
from .trial import Trial

STEPS, WIDTH, HIDDEN = 300, 64, 128
SHARE = 0.08
"""Of the units, that a token is to go through."""


class ChosenByItsGate(nn.Module):
    """A gated network that goes through few of its units: those whose gates are largest, all features considered."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = round(SHARE * self.gate.out_features)
        return self.down(F.gelu(statistical_top_k(self.gate(x), active)) * self.up(x))


def spark() -> nn.Module:
    """With as many parameters as the gated networks that it replaces."""
    hidden = HIDDEN * 3 // 2
    config = SparkConfig(width=WIDTH, hidden=hidden, predictor=WIDTH // 2, active=round(SHARE * hidden), heads=4)
    return SparkFeedForward(config)


def arm(network: Callable[[], nn.Module] | None) -> Callable[[int], float]:
    """Training with these feed-forward networks; gated ones where None."""
    config = HybridConfig(
        layer_types=("full",) * 3, width=WIDTH, hidden=HIDDEN, vocabulary=BYTES, attention=AttentionConfig(heads=4)
    )

    def make() -> nn.Module:
        model = HybridLanguageModel(config)
        if network is not None:
            for block in model.blocks:
                block.feed_forward = network()
        return model

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        return text_loss(make, seed, steps=STEPS)

    return run


TRIAL = Trial(
    claim=f"going through {SHARE:.0%} of its units, a network that chooses them by part of a token beats one that "
    "chooses by its gates, at equal parameters",
    measure="loss on held-out Python source, nats a byte",
    higher_is_better=False,
    arms={
        "chosen by part of the token": arm(spark),
        "chosen by the gates": arm(lambda: ChosenByItsGate(WIDTH, HIDDEN)),
        "all units": arm(None),
    },
    against=("chosen by the gates",),
    task=f"bytes of Python's standard library, 3 blocks of width {WIDTH}, {STEPS} steps of 16 x 64 bytes",
)
