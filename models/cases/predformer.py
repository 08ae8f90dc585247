"""What is remembered of PredFormer."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import numbers
from ..predformer import LAYOUTS, sinusoids
from ..remember import case, filled_model, thinned


@case("predformer", "every layout")
@torch.no_grad()
def layouts() -> list[Tensor]:
    x, found = numbers((2, 3, 2, 8, 12)), []
    for layout, (pattern, _) in LAYOUTS.items():
        blocks = len(pattern) * 2
        model = filled_model("predformer", layout=layout, frames=3, channels=2, picture=(8, 12), blocks=blocks)
        found.append(model(x))
    found.append(filled_model("predformer", layout="fac-st", legacy_order=True)(numbers((2, 2, 1, 8, 8))))
    return found


@case("predformer", "more frames than it gives at once, and the table of positions")
@torch.no_grad()
def predicted() -> list[Tensor]:
    return [filled_model("predformer").predict(numbers((2, 2, 1, 8, 8)), 5), sinusoids(5, 6)]


case("predformer", "where it drops in training")(lambda: thinned("predformer"))
