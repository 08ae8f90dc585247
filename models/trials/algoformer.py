"""AlgoFormer's claim in small: regression on a representation that is the same in every context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..algoformer import AlgoFormer, AlgoFormerConfig
from .fit import fit
from .trial import Trial

INPUTS, EXAMPLES, STEPS, BATCH = 3, 12, 500, 32


def draw(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(inputs, values): weights of its own for each context on two layers that are the same for all."""
    fixed = torch.Generator().manual_seed(0)
    first, second = (torch.randn(INPUTS, INPUTS, generator=fixed) for _ in range(2))
    x = torch.randn(batch, EXAMPLES, INPUTS, generator=generator)
    features = torch.nn.functional.leaky_relu(torch.nn.functional.leaky_relu(x @ first, 0.2) @ second, 0.2)
    weights = torch.randn(batch, INPUTS, 1, generator=generator)
    return x, (features @ weights)[..., 0] / features.square().sum(-1).mean().sqrt()


def arm(*, trained: int, **settings: Any) -> Callable[[int], float]:
    """The error on the last input of contexts that were not trained on."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model = AlgoFormer(AlgoFormerConfig(inputs=INPUTS, examples=EXAMPLES, width=32, heads=4, **settings))
        generator = torch.Generator().manual_seed(seed)

        def loss(_step: int) -> Tensor:
            x, y = draw(BATCH, generator)
            return (model(x, y, trained=trained) - y).square().mean()

        fit(model, loss, steps=STEPS)
        x, y = draw(512, torch.Generator().manual_seed(10_000))
        with torch.no_grad():
            return float((model(x, y)[-1] - y)[:, -1].square().mean())

    return run


TRIAL = Trial(
    claim="a loop of 6 between two blocks predicts better than three plain blocks with as many parameters",
    measure="mean square error on the 12th example; 1 is about that of saying 0",
    higher_is_better=False,
    arms={
        "algoformer": arm(trained=3, loops=6),
        "three blocks": arm(trained=1, loops=1),
        "one looped block": arm(trained=3, loops=6, before=0, after=0, injection="add"),
    },
    against=("three blocks", "one looped block"),
    task=f"linear in two fixed layers of {INPUTS} inputs, width 32, {STEPS} steps of {BATCH} contexts of {EXAMPLES}",
)
