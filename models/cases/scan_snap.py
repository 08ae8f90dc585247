"""What is remembered of scan and snap."""

from __future__ import annotations

import torch

from ..numbers import numbers, whole_numbers
from ..remember import case
from ..scan_snap import Language, attend, freezing_step, gradients, train

SMALL = Language(next_tokens=2, common=3, distinct=4, length=16)


@case("scan_snap", "chances, attention, both gradients and the loss, when it freezes")
def parts() -> list[object]:
    Y, z = numbers((SMALL.tokens, SMALL.tokens)), numbers((SMALL.tokens,), 1)
    counts = whole_numbers((5, SMALL.tokens), 4, 2).double()
    drawn = SMALL.draw(6, torch.Generator().manual_seed(0))
    return [
        SMALL.chances(), Language().chances(), attend(z, counts), *gradients(Y, z, counts, whole_numbers((5,), 12, 3)),
        freezing_step(SMALL, 0.5), [SMALL.tokens, SMALL.first_next], [float(part.sum()) for part in drawn],
    ]  # fmt: skip


@case("scan_snap", "thirty steps of training")
def trained() -> object:
    return train(SMALL, decoder_rate=2.0, attention_rate=0.5, steps=30, batch=16, seed=1)
