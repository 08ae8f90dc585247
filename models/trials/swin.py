"""Swin's claim in small: a bit that may lie in the next window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..swin import SwinSettings, build_swin
from .fit import fit
from .trial import Trial

SIDE, AWAY, STEPS = 16, 2, 300
SETTINGS = SwinSettings(
    width=32, depths=(2,), heads=(2,), window=4, patch=1, picture=SIDE, channels=1, drop_path=0.0, classes=1
)


class NextBit(nn.Module):
    """A logit for every position of a picture, from one stage of two blocks."""

    def __init__(self, *, shifted: bool) -> None:
        super().__init__()
        model: Any = build_swin(SETTINGS)
        self.backbone, self.head = model.swin, nn.Linear(SETTINGS.width, 1)
        if not shifted:
            for block in self.backbone.encoder.layers[0].blocks:
                block.shift_size = 0

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.head(self.backbone(x_BCYX).last_hidden_state)[..., 0].unflatten(-1, (SIDE, SIDE))


def arm(shifted: bool) -> Callable[[int], float]:
    """Training with shifted windows in the second block, or with the same windows in both."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model, generator = NextBit(shifted=shifted), torch.Generator().manual_seed(seed)

        def loss(_step: int) -> Tensor:
            bits = torch.randint(2, (16, 1, SIDE, SIDE), generator=generator).float()
            return F.binary_cross_entropy_with_logits(model(bits)[..., :-AWAY], bits[:, 0, :, AWAY:])

        fit(model, loss, steps=STEPS)
        bits = torch.randint(2, (64, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(10_000)).float()
        with torch.no_grad():
            said = model(bits)[..., :-AWAY] > 0
        return float((said == (bits[:, 0, :, AWAY:] > 0)).float().mean())

    return run


TRIAL = Trial(
    claim="windows that move in the second block see what lies in the next window",
    measure=f"share of bits {AWAY} columns to the right named right; 11/14 = 0.786 at most within windows",
    higher_is_better=True,
    arms={"shifted": arm(True), "not shifted": arm(False)},
    against=("not shifted",),
    task=f"pictures of {SIDE} x {SIDE} random bits, windows of 4 x 4, two blocks of width 32, {STEPS} steps of 16",
)
