"""What is remembered of P2AT."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import numbers, picture_batch, whole_numbers
from ..p2at import hard_pixel_loss
from ..remember import case, filled_model


@case("p2at", "logits of all heads: the toy, the published pool, bottlenecks without further heads", near=1e-6)
@torch.no_grad()
def forms() -> list[list[Tensor]]:
    x = picture_batch(33, 64).double()
    bottleneck = {"bottleneck": True, "stages": (16, 16, 16, 16), "auxiliary": False}
    return [filled_model("p2at", **changes).all_logits(x) for changes in ({}, {"legacy_pool": True}, bottleneck)]


@case("p2at", "the loss of hard pixels")
def hard() -> list[Tensor]:
    logits, classes = 4 * numbers((2, 5, 6, 7)), whole_numbers((2, 6, 7), 5)
    return [hard_pixel_loss(logits, classes, sure=sure, keep=keep) for sure, keep in ((0.9, 10), (0.2, 60), (1.0, 4))]
