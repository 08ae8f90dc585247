"""Quantizable transformers in small: what few bits cost a language model whose heads can put out nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hybrid import AttentionConfig, HybridConfig, HybridLanguageModel
from ..quantizable import quantised
from .data import BYTES, python_source, windows
from .fit import fit
from .trial import Trial

STEPS, LENGTH, BITS = 300, 64, 5


def arm(*, gate: str = "none", clip: float = 0.0) -> Callable[[int], float]:
    """Training, then the same held-out text in floating point and in few bits."""
    config = HybridConfig(
        layer_types=("full",) * 3, width=64, hidden=192, vocabulary=BYTES,
        attention=AttentionConfig(heads=4, gate=gate, clip=clip),
    )  # fmt: skip

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model, generator = HybridLanguageModel(config), torch.Generator().manual_seed(seed)
        train, held = python_source()

        def loss(of: torch.nn.Module, pieces: Tensor) -> Tensor:
            return F.cross_entropy(of(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())

        fit(model, lambda _step: loss(model, windows(train, 16, LENGTH, generator)), steps=STEPS)
        pieces = windows(held, 128, LENGTH, torch.Generator().manual_seed(0))
        with torch.no_grad():
            return float(loss(quantised(model, bits=BITS), pieces) - loss(model, pieces))

    return run


TRIAL = Trial(
    claim="heads that can put out nothing lose less to few bits",
    measure=f"nats a byte that {BITS} bits for weights and inputs cost, one scale a tensor",
    higher_is_better=False,
    arms={"a gate a head": arm(gate="head"), "plain": arm(), "clipped softmax": arm(clip=2.0)},
    against=("plain",),
    task=f"bytes of Python's standard library, 3 blocks of width 64, {STEPS} steps of 16 x {LENGTH} bytes",
)
