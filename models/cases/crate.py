"""What is remembered of CRATE."""

from __future__ import annotations

import torch
from torch import Tensor

from ..crate import coding_rate, compression_step, sparse_step
from ..numbers import numbers, picture_batch
from ..remember import case, filled_model, given

case("crate", "the toy")(lambda: given("crate"))


@case("crate", "tokens after every layer, with other steps")
@torch.no_grad()
def tokens() -> list[Tensor]:
    return filled_model("crate", step=0.3, sparsity=0.2).tokens(picture_batch(8).double())


@case("crate", "the coding rate, a step that lowers it, a step of sparse coding")
@torch.no_grad()
def steps() -> list[Tensor]:
    z, bases = numbers((7, 8)), numbers((2, 3, 8), 1)
    code = sparse_step(z.abs(), z, numbers((8, 8), 2), step=0.2, sparsity=0.3)
    return [
        coding_rate(z, bases), coding_rate(z, bases, precision=0.3), compression_step(z, bases, step=0.1),
        compression_step(z, bases, step=0.1, precision=0.3), code,
    ]  # fmt: skip
