"""What is remembered of MosaicBERT."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mosaic_bert import mask_tokens
from ..numbers import whole_numbers
from ..remember import case, filled_model, given, thinned

case("mosaic_bert", "the toy, nothing padded")(lambda: given("mosaic_bert"))
case("mosaic_bert", "where it drops in training")(lambda: thinned("mosaic_bert"))


@case("mosaic_bert", "padded texts: logits, features, masked places; its forms")
@torch.no_grad()
def forms() -> list[Tensor]:
    tokens, made = whole_numbers((3, 9), 32), []
    valid = torch.arange(9) < torch.tensor([[9], [4], [1]])
    masked = (whole_numbers((3, 9), 3, 1) == 0) & valid
    for changes in (
        {},
        {"gated": False},
        {"learned_positions": 12},
        {"heads": 6, "width": 24},
        {"heads": 3, "width": 12},
    ):
        model = filled_model("mosaic_bert", **changes)
        made += [model(tokens, valid), model.encode(tokens, valid), model.masked_logits(tokens, masked, valid)]
    return made


@case("mosaic_bert", "hidden tokens")
def hidden() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = whole_numbers((4, 60), 90)
    made, which = mask_tokens(tokens, rate=0.3, mask=99, vocabulary=90, special=tokens == 3, generator=generator)
    return [made.double(), which.double()]
