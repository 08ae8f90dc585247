"""What is remembered of quantizable transformers."""

from __future__ import annotations

import torch

from ..numbers import whole_numbers
from ..quantizable import outliers, quantised
from ..remember import case, filled_model, given

case("quantizable", "the toy: a clipped softmax and a gate a head")(lambda: given("quantizable"))
case("quantizable", "clipped harder, no gate")(lambda: given("quantizable", attention={"clip": 3.0, "gate": "none"}))


@case("quantizable", "in 8, 4 and 3 bits, by tensor and by block; outliers")
@torch.no_grad()
def in_codes() -> list[object]:
    model, tokens = filled_model("quantizable"), whole_numbers((2, 9), 32)
    made: list[object] = [
        quantised(model, bits=bits, block=block)(tokens) for bits, block in ((8, None), (4, None), (3, 8), (8, 4))
    ]
    return [*made, outliers(model, tokens)]
