"""ViG's claim in small: every place must name the colour of one marker, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.pictures import ChannelNorm
from ..vig import VigBlock
from .fit import fit
from .trial import Trial

SIDE, COLOURS, WIDTH, STEPS, FAR = 8, 8, 32, 250, 20


def arm(both: bool) -> Callable[[int], float]:
    """Training with both directions, or with the first only."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        blocks = [VigBlock(WIDTH, 2, 96, ChannelNorm, activated=False, backward=both) for _ in range(2)]
        model = nn.Sequential(nn.Conv2d(COLOURS, WIDTH, 1), *blocks, ChannelNorm(WIDTH), nn.Conv2d(WIDTH, COLOURS, 1))

        def draw(count: int, drawn: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
            place = torch.randint(SIDE * SIDE, (count,), generator=drawn)
            colour = torch.randint(COLOURS, (count,), generator=drawn)
            picture = torch.zeros(count, COLOURS, SIDE * SIDE)
            picture[torch.arange(count), colour, place] = 1
            return picture.unflatten(-1, (SIDE, SIDE)), place, colour

        def loss(_step: int) -> Tensor:
            picture, _, colour = draw(32, generator)
            return F.cross_entropy(model(picture).flatten(2), colour[:, None].expand(-1, SIDE * SIDE))

        fit(model, loss, steps=STEPS)
        picture, place, colour = draw(256, torch.Generator().manual_seed(10_000))
        before = torch.arange(SIDE * SIDE) < place[:, None] - FAR
        with torch.no_grad():
            right = model(picture).flatten(2).argmax(1) == colour[:, None]
        return float(right[before].float().mean())

    return run


TRIAL = Trial(
    claim="places that come before a marker know its colour when tokens are read in both directions",
    measure=f"share of places more than {FAR} tokens before the marker that name its colour; chance is 0.125",
    higher_is_better=True,
    arms={"both directions": arm(True), "one direction": arm(False)},
    against=("one direction",),
    task=f"one marker of {COLOURS} colours on {SIDE} x {SIDE} places, two blocks of width {WIDTH}, {STEPS} steps of 32",
)
