"""MossFormer's claim in small: two voices apart, with attention over the whole recording and without."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..layers.separation import in_best_order, si_sdr
from ..mossformer import Mossformer, MossformerConfig
from .fit import fit
from .trial import Trial
from .voices import mixtures

RATE, SAMPLES, STEPS, WIDTH, GROUP = 4000, 1600, 250, 32, 16


def config_of(*, over_all: bool = True, blocks: int = 2) -> MossformerConfig:
    """Groups of 16 of 199 frames: what lies further away is reached by the state alone."""
    return MossformerConfig(
        width=WIDTH, blocks=blocks, group=GROUP, key_width=32, filter=9, over_all=over_all, dropout=0.0
    )


def improvement(make: Callable[[], nn.Module], seed: int, *, steps: int = STEPS) -> float:
    """Decibels that voices are clearer than in their mixture, on mixtures not trained on."""
    torch.manual_seed(seed)
    model, generator = make(), torch.Generator().manual_seed(seed)

    def loss(_step: int) -> torch.Tensor:
        mixture, voices = mixtures(8, SAMPLES, RATE, generator)
        return -in_best_order(model(mixture), voices)[1].mean()

    fit(model, loss, steps=steps)
    mixture, voices = mixtures(64, SAMPLES, RATE, torch.Generator().manual_seed(10_000))
    with torch.no_grad():
        reached = in_best_order(model(mixture), voices)[1]
    return float((reached - si_sdr(mixture[:, None].expand_as(voices), voices)).mean())


def arm(*, over_all: bool) -> Callable[[int], float]:
    """Training with the state of all frames, or without."""
    return lambda seed: improvement(lambda: Mossformer(config_of(over_all=over_all)), seed)


TRIAL = Trial(
    claim="attention over the whole recording beside attention among neighbours separates better than neighbours alone",
    measure="decibels of SI-SDR over the mixture's",
    higher_is_better=True,
    arms={"neighbours and all": arm(over_all=True), "neighbours": arm(over_all=False)},
    against=("neighbours",),
    task=f"two voices from a formula, {SAMPLES} samples at {RATE} Hz, two blocks of width {WIDTH} with groups of "
    f"{GROUP} frames, {STEPS} steps of 8 mixtures",
)
