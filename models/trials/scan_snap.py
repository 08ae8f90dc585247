"""Scan and snap in small: attention turns from common tokens, and less so where the decoder learns fast."""

from __future__ import annotations

from collections.abc import Callable

from ..scan_snap import Language, attend, train
from .trial import Trial

STEPS, LANGUAGE, ATTENTION_RATE = 400, Language(), 0.5


def arm(decoder_rate: float) -> Callable[[int], float]:
    """Attention to common tokens after a training."""
    return lambda seed: train(
        LANGUAGE, decoder_rate=decoder_rate, attention_rate=ATTENTION_RATE, steps=STEPS, seed=seed
    ).common[-1]


def untrained(_seed: int) -> float:
    """The same with attention to all tokens alike."""
    chances = LANGUAGE.chances()
    return float(attend(0 * chances[0], chances)[:, : LANGUAGE.common].sum(1).mean())


TRIAL = Trial(
    claim="attention turns from common tokens, and turns further where the decoder learns more slowly",
    measure="attention to common tokens",
    higher_is_better=False,
    arms={"decoder rate 1": arm(1.0), "decoder rate 5": arm(5.0), "untrained": untrained, "decoder rate 0.5": arm(0.5)},
    against=("decoder rate 5", "untrained"),
    task=f"10 common tokens and 10 distinct to each of 2 next ones, {STEPS} steps of 64 contexts of 128, "
    f"attention's rate {ATTENTION_RATE}",
)
