"""What is remembered of FuseGPT."""

from __future__ import annotations

from typing import Any

import torch

from ..fusegpt import FuseConfig, Graft, Skip, fuse, importance
from ..numbers import numbers, whole_numbers
from ..remember import case, filled, filled_model


def model() -> Any:
    return filled_model("gla", layer_types=("gla", "full", "gla", "gla"), attention={"heads": 2})


@case("fusegpt", "importance of blocks, grafts and a block left out")
@torch.no_grad()
def parts() -> list[object]:
    batches = [whole_numbers((2, 6), 32, seed) for seed in range(2)]
    graft = filled(Graft(numbers((5, 4)), numbers((5, 4), 1), 2))
    plain = filled(Graft(numbers((5, 4)), None, 2))
    x = numbers((1, 2, 3))
    return [importance(model(), batches), graft(numbers((5, 4), 2)), plain(numbers((5, 4), 2)), Skip()(x, None)]


@case("fusegpt", "a model with fewer blocks, before and after learning", near=1e-5)
def fused() -> list[object]:
    batches = [whole_numbers((2, 6), 32, seed) for seed in range(2)]
    made: list[object] = []
    for epochs, graft in ((0, True), (2, True), (2, False)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = FuseConfig(share=0.3, group=3, rank=2, epochs=epochs, rate=1e-3, graft_rate=1e-2, graft=graft)
            small, gone = fuse(model(), batches, config)
        with torch.no_grad():
            made += [small(batches[0]), gone]
    return made
