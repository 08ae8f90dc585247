"""MOAT's claim in small: digits without positions, beside a transformer without them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..moat import MapAttention, MobileConv
from .digits import DigitTransformer, digit_accuracy
from .trial import Trial

STEPS, WIDTH = 300, 32


class DigitMoat(nn.Module):
    """Three blocks on patches of 2 x 2."""

    def __init__(self, *, positions: bool) -> None:
        super().__init__()
        blocks = [
            part
            for _ in range(3)
            for part in (
                MobileConv(WIDTH, WIDTH, 1, excite=False),
                MapAttention(WIDTH, 4, positions=positions, window=None),
            )
        ]
        self.layers = nn.Sequential(nn.Conv2d(1, WIDTH, 2, 2), *blocks)
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10))
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.1  # the paper's 0.01 is for trainings of many thousand steps

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.head(self.layers(x_BCYX).mean((2, 3)))


def arm(make: Callable[[], nn.Module]) -> Callable[[int], float]:
    """Training one of the models."""
    return lambda seed: digit_accuracy(make, seed, steps=STEPS)


TRIAL = Trial(
    claim="with mobile convolutions before attention, positions are hardly needed: without them it is better than a "
    "transformer that has none",
    measure="share of held-out digits named right",
    higher_is_better=True,
    arms={
        "MOAT without positions": arm(lambda: DigitMoat(positions=False)),
        "transformer without positions": arm(lambda: DigitTransformer(width=WIDTH, layers=3, positions=False)),
        "MOAT with positions": arm(lambda: DigitMoat(positions=True)),
        "transformer with positions": arm(lambda: DigitTransformer(width=WIDTH, layers=3, positions=True)),
    },
    against=("transformer without positions",),
    task=f"scikit-learn's digits in patches of 2 x 2, three blocks of width {WIDTH}, {STEPS} steps of 64",
)
