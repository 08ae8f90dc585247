"""What is remembered of GTrXL."""

from __future__ import annotations

import torch

from ..gtrxl import RESIDUAL_GATES, sinusoids
from ..numbers import numbers
from ..remember import case, filled_model, given

case("gtrxl", "the toy")(lambda: given("gtrxl"))


@case("gtrxl", "every gate, norms before and after, with a memory of earlier segments")
@torch.no_grad()
def forms() -> list[object]:
    x, made = numbers((2, 11, 8)), []
    for gate in RESIDUAL_GATES:
        for norm in ("before", "after"):
            model, memory = filled_model("gtrxl", gate=gate, norm=norm, memory=3), None
            for part in x.split(4, 1):
                out, memory = model.step(part, memory)
                made += [out, memory]
    return made


@case("gtrxl", "no memory, distances, and no gradient into a memory")
def rest() -> list[object]:
    model = filled_model("gtrxl", memory=0)
    x = numbers((1, 3, 8)).requires_grad_()
    out, memory = model.step(x, None)
    second, kept = filled_model("gtrxl").step(x, None)
    carried = filled_model("gtrxl").step(x.detach(), kept)[0].requires_grad
    learns = [float(carried), float(kept[0].requires_grad), float(second.requires_grad)]
    return [out, list(memory), learns, sinusoids(4, 6, x.detach())]
