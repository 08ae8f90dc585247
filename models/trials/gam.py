"""GAM's ablation in small: two paths gated, summed, and each alone."""

from __future__ import annotations

from collections.abc import Callable

from ..gam import Gam, GamConfig
from .data import BYTES
from .fit import text_loss
from .trial import Trial

STEPS = 120


def arm(fusion: str) -> Callable[[int], float]:
    """Training with one way to join the paths."""
    config = GamConfig(vocabulary=BYTES, length=64, width=64, layers=3, memories=64, dropout=0.0, fusion=fusion)
    return lambda seed: text_loss(lambda: Gam(config), seed, steps=STEPS)


TRIAL = Trial(
    claim="gating the two paths is better than their sum and than either alone",
    measure="loss on held-out Python source, nats a byte",
    higher_is_better=False,
    arms={"gated": arm("gated"), "sum": arm("sum"), "local alone": arm("local"), "global alone": arm("global")},
    against=("sum", "local alone", "global alone"),
    task=f"bytes of Python's standard library, 3 blocks of width 64, {STEPS} steps of 16 x 64 bytes",
)
