"""MosaicBERT in small: an encoder trained on short texts reads longer ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..mosaic_bert import MosaicBert, MosaicBertConfig, mask_tokens
from .data import BYTES, python_source, windows
from .fit import fit
from .trial import Trial

STEPS, LENGTH, LONGER, RATE = 300, 64, 128, 0.3
MASK = BYTES


def arm(learned_positions: int | None) -> Callable[[int], float]:
    """Training on texts of LENGTH bytes, reading LONGER ones, with linear biases or a table that is long enough."""
    config = MosaicBertConfig(
        vocabulary=192, width=64, layers=3, heads=4, hidden=128, dropout=0.0, learned_positions=learned_positions
    )

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model, generator = MosaicBert(config), torch.Generator().manual_seed(seed)
        train, held = python_source()

        def loss(text: Tensor, batch: int, length: int, drawn: torch.Generator) -> Tensor:
            tokens = windows(text, batch, length - 1, drawn)
            seen, hidden = mask_tokens(
                tokens, rate=RATE, mask=MASK, vocabulary=BYTES, special=torch.zeros_like(tokens).bool(), generator=drawn
            )
            return F.cross_entropy(model.masked_logits(seen, hidden), tokens[hidden])

        fit(model, lambda _step: loss(train, 16, LENGTH, generator), steps=STEPS)
        with torch.no_grad():
            short, long = (
                float(loss(held, 8192 // length, length, torch.Generator().manual_seed(0)))
                for length in (LENGTH, LONGER)
            )
        return long - short

    return run


TRIAL = Trial(
    claim=f"trained on {LENGTH} bytes, linear biases lose less on {LONGER} than learned positions",
    measure=f"nats a hidden byte more at {LONGER} bytes than at {LENGTH}, held out; below 0: longer texts help",
    higher_is_better=False,
    arms={"linear biases": arm(None), "learned positions": arm(LONGER)},
    against=("learned positions",),
    task=f"bytes of Python's standard library, 3 blocks of width 64, {RATE:.0%} hidden, {STEPS} steps of 16",
)
