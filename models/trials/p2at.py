"""P2AT's claim in small: pixels to mark for a dot that stands anywhere in their row or column."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..p2at import P2atConfig, TransformerLayer, activated
from .fit import fit
from .scenes import mean_overlap
from .trial import Trial

SIDE, DOTS, WIDTH, STEPS = 24, 3, 16, 200


def crosses(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(pictures (B, 1, Y, X) of dots, classes (B, Y, X): 1 where a dot is in the row or the column)."""
    dots = torch.zeros(count, SIDE * SIDE)
    places = torch.rand(count, SIDE * SIDE, generator=generator).argsort(-1)[:, :DOTS]
    dots = dots.scatter(1, places, 1.0).unflatten(-1, (SIDE, SIDE))
    seen = dots.amax(2, keepdim=True).maximum(dots.amax(1, keepdim=True))
    return dots[:, None], seen.long()


def network(middle: nn.Module) -> nn.Module:
    """Convolutions around what is compared."""
    return nn.Sequential(activated(1, WIDTH, 3), middle, activated(WIDTH, WIDTH, 3), nn.Conv2d(WIDTH, 2, 1))


class WideConvolutions(nn.Module):
    """In the place of the transformer layer: two depthwise convolutions of 7 x 7, each with a layer that mixes."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(activated(WIDTH, WIDTH, 7, groups=WIDTH), activated(WIDTH, WIDTH, 1)) for _ in range(2)
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        for part in self.parts:
            x_BCYX = x_BCYX + part(x_BCYX)
        return x_BCYX


def arm(make: Callable[[], nn.Module]) -> Callable[[int], float]:
    """Training one of the networks."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model, generator = network(make()), torch.Generator().manual_seed(seed)

        def loss(_step: int) -> Tensor:
            pictures, classes = crosses(16, generator)
            return F.cross_entropy(model(pictures), classes)

        fit(model, loss, steps=STEPS)
        pictures, classes = crosses(64, torch.Generator().manual_seed(10_000))
        with torch.no_grad():
            return mean_overlap(model(pictures).argmax(1), classes, 2)

    return run


TRIAL = Trial(
    claim="one layer of attention among rows and columns sees what convolutions of the same depth do not reach",
    measure="mean overlap (intersection over union) of the two classes",
    higher_is_better=True,
    arms={
        "attention among rows and columns": arm(lambda: TransformerLayer(P2atConfig(width=WIDTH, heads=2))),
        "convolutions of 7 x 7": arm(WideConvolutions),
    },
    against=("convolutions of 7 x 7",),
    task=f"{DOTS} dots in pictures of {SIDE} x {SIDE}: mark their rows and columns; width {WIDTH}, {STEPS} steps of 16",
)
