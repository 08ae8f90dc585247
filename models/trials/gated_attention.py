"""Gated attention in small: the loss on text at equal parameters."""

from __future__ import annotations

from collections.abc import Callable

from ..hybrid import AttentionConfig, HybridConfig, HybridLanguageModel
from .data import BYTES
from .fit import text_loss
from .trial import Trial

STEPS = 300
WIDTH, HIDDEN = 64, 192


def arm(gate: str) -> Callable[[int], float]:
    """Training with one kind of gate; the feed-forward network gives up what the gate takes."""
    hidden = HIDDEN - {"none": 0, "channel": WIDTH // 3, "head": 1}[gate]
    config = HybridConfig(
        layer_types=("full",) * 3, width=WIDTH, hidden=hidden, vocabulary=BYTES,
        attention=AttentionConfig(heads=4, gate=gate),
    )  # fmt: skip
    return lambda seed: text_loss(lambda: HybridLanguageModel(config), seed, steps=STEPS)


TRIAL = Trial(
    claim="at equal parameters, a gate a channel behind attention lowers the loss",
    measure="loss on held-out Python source, nats a byte",
    higher_is_better=False,
    arms={"a channel": arm("channel"), "none": arm("none"), "a head": arm("head")},
    against=("none",),
    task=f"bytes of Python's standard library, 3 blocks of width {WIDTH}, {STEPS} steps of 16 x 64 bytes",
)
