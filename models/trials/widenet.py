"""WideNet in small: what norms of its own for every depth and experts add to one block gone through again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..widenet import WideNet, WideNetConfig
from .digits import digit_accuracy
from .trial import Trial

STEPS, WIDTH, HIDDEN, LAYERS = 300, 32, 64, 6


class InThreeColours(nn.Module):
    """A WideNet that sees grey digits."""

    def __init__(self, config: WideNetConfig) -> None:
        super().__init__()
        self.model = WideNet(config)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.model(pictures.expand(-1, 3, -1, -1))


def arm(*, experts: int, active: int, own_norms: bool) -> Callable[[int], float]:
    """Training with experts that hold as many units, together and for a token, as one network's."""
    config = WideNetConfig(
        width=WIDTH, layers=LAYERS, heads=4, hidden=HIDDEN, experts=experts, active=active, capacity=4.0,
        image=8, patch=2, classes=10, own_norms=own_norms,
    )  # fmt: skip

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        return digit_accuracy(lambda: InThreeColours(config), seed, steps=STEPS, rate=3e-3)

    return run


TRIAL = Trial(
    claim="with norms of their own, depths that share a block go on to differ: better than sharing the norms, too",
    measure="share of held-out digits named right",
    higher_is_better=True,
    arms={
        "4 experts, own norms": arm(experts=4, active=2, own_norms=True),
        "4 experts, shared norms": arm(experts=4, active=2, own_norms=False),
        "one network, own norms": arm(experts=1, active=1, own_norms=True),
    },
    against=("4 experts, shared norms",),
    task=f"1437 digits of 8 x 8, one block of width {WIDTH} gone through {LAYERS} times, {STEPS} steps of 64",
)
