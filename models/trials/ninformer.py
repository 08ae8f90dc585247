"""NiNformer's claim in small: digits, beside its inner mixer alone and a transformer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..layers.pictures import tokens_of
from ..ninformer import InnerMixer, Ninformer, NinformerConfig
from .digits import DigitTransformer, digit_accuracy
from .trial import Trial

STEPS = 300
CONFIG = NinformerConfig(picture=8, patch=2, channels=1, width=64, hidden=128, layers=3, dropout=0.0)


class DigitMixer(nn.Module):
    """The inner mixers as a model of their own, with as many blocks as asked."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, CONFIG.width, CONFIG.patch, CONFIG.patch)
        self.blocks = nn.Sequential(*(InnerMixer(16, CONFIG) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(CONFIG.width), nn.Linear(CONFIG.width, 10))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.head(self.blocks(tokens_of(self.patch(x_BCYX))).mean(1))


def arm(make: Callable[[], nn.Module]) -> Callable[[int], float]:
    """Training one of the models."""
    return lambda seed: digit_accuracy(make, seed, steps=STEPS)


TRIAL = Trial(
    claim="a gate made by token mixing is better than token mixing alone and than attention",
    measure="share of held-out digits named right",
    higher_is_better=True,
    arms={
        "NiNformer": arm(lambda: Ninformer(CONFIG)),
        "mixer of as many blocks": arm(lambda: DigitMixer(3)),
        "transformer with positions": arm(lambda: DigitTransformer(width=64, layers=3, positions=True)),
        "mixer of more parameters": arm(lambda: DigitMixer(7)),
    },
    against=("mixer of as many blocks", "transformer with positions"),
    task=f"scikit-learn's digits in patches of 2 x 2, three blocks of width 64, {STEPS} steps of 64",
)
