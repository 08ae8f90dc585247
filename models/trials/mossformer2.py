"""MossFormer2's claim in small: the voices of MossFormer's trial, with memories and with a block in their place."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..mossformer import Mossformer
from ..mossformer2 import Mossformer2Config, build_mossformer2
from .mossformer import GROUP, RATE, SAMPLES, STEPS, WIDTH, config_of, improvement
from .trial import Trial

CONFIG = Mossformer2Config(
    width=WIDTH, blocks=2, group=GROUP, key_width=32, filter=9, dropout=0.0, memory_width=16, order=10
)


def arm(make: Callable[[], nn.Module]) -> Callable[[int], float]:
    """Training one of the models."""
    return lambda seed: improvement(make, seed)


TRIAL = Trial(
    claim="a memory after each of two blocks separates better than a third block of as many parameters",
    measure="decibels of SI-SDR over the mixture's",
    higher_is_better=True,
    arms={
        "two blocks with memories": arm(lambda: build_mossformer2(CONFIG)),
        "three blocks": arm(lambda: Mossformer(config_of(blocks=3))),
    },
    against=("three blocks",),
    task=f"two voices from a formula, {SAMPLES} samples at {RATE} Hz, width {WIDTH} with groups of {GROUP} frames and "
    f"memories of width {CONFIG.memory_width}, {STEPS} steps of 8 mixtures",
)
