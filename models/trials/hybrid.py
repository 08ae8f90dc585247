"""Hybrid linear attention in small: recall of more pairs than a narrow state holds."""

from __future__ import annotations

from collections.abc import Callable

from ..hybrid import AttentionConfig, HybridConfig, HybridLanguageModel
from .fit import recall_accuracy
from .trial import Trial

STEPS, PAIRS = 600, 8


def arm(*kinds: str) -> Callable[[int], float]:
    """Training with these layers."""
    config = HybridConfig(
        layer_types=kinds, width=32, heads=4, hidden=64, vocabulary=32, attention=AttentionConfig(heads=2)
    )
    return lambda seed: recall_accuracy(lambda: HybridLanguageModel(config), seed, steps=STEPS, pairs=PAIRS)


TRIAL = Trial(
    claim="one full layer among linear ones brings back the recall that a state of fixed size loses",
    measure="share of 8 values recalled by their keys, chance 0.06",
    higher_is_better=True,
    arms={
        "deltanet + full": arm("deltanet", "full"),
        "deltanet alone": arm("deltanet", "deltanet"),
        "gla alone": arm("gla", "gla"),
        "full alone": arm("full", "full"),
    },
    against=("gla alone",),
    task=f"{PAIRS} pairs of 16 keys and 16 values, 2 blocks of width 32, {STEPS} steps of 32 sequences",
)
