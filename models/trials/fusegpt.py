"""FuseGPT in small: a language model of bytes that loses one of its blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fusegpt import FuseConfig, fuse
from ..hybrid import AttentionConfig, HybridConfig, HybridLanguageModel
from .data import BYTES, python_source, windows
from .fit import fit
from .trial import Trial

STEPS, WIDTH, LAYERS, BATCHES, EPOCHS = 300, 64, 4, 16, 6


def loss_of(model: HybridLanguageModel, pieces: Tensor) -> Tensor:
    """Nats a byte."""
    return F.cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())


@torch.no_grad()
def held_out(model: HybridLanguageModel) -> float:
    """The loss on text that was not trained on."""
    return float(loss_of(model, windows(python_source()[1], 128, 64, torch.Generator().manual_seed(0))))


@functools.cache
def trained(seed: int) -> HybridLanguageModel:
    """The model that all arms of a seed prune."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = HybridLanguageModel(
        HybridConfig(
            layer_types=("full",) * LAYERS, width=WIDTH, hidden=3 * WIDTH, vocabulary=BYTES,
            attention=AttentionConfig(heads=4),
        )
    )  # fmt: skip
    fit(model, lambda _step: loss_of(model, windows(python_source()[0], 16, 64, generator)), steps=STEPS)
    return model


def arm(*, graft: bool, epochs: int = EPOCHS) -> Callable[[int], float]:
    """Pruning one block."""

    def run(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed + 100)
        batches = [windows(python_source()[0], 16, 63, generator) for _ in range(BATCHES)]
        torch.manual_seed(seed)
        config = FuseConfig(share=1 / LAYERS, rank=8, epochs=epochs, rate=1e-3, graft_rate=1e-3, graft=graft)
        return held_out(fuse(trained(seed), batches, config)[0])

    return run


TRIAL = Trial(
    claim="grafting the pruned block onto its neighbours loses less than learning without it",
    measure="loss on held-out Python source, nats a byte",
    higher_is_better=False,
    arms={
        "grafted": arm(graft=True),
        "learnt without": arm(graft=False),
        "left out": arm(graft=True, epochs=0),
        "not pruned": lambda seed: held_out(trained(seed)),
    },
    against=("learnt without", "left out"),
    task=f"one of {LAYERS} blocks of width {WIDTH}, {STEPS} steps of 16 x 64 bytes; {EPOCHS} epochs of {BATCHES} "
    "batches, rank 8",
)
