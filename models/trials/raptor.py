"""The claim on recurrence in small: transformers on digits, and a few blocks that follow them layer by layer."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..phases import phases, similarity, states
from ..raptor import Raptor, RaptorConfig, follow
from .digits import TEST, DigitTransformer, digits, teach_digits
from .trial import Trial

WIDTH, LAYERS, TEACHER_STEPS, STEPS = 48, 8, 400, 400


class SkippedAtTimes(nn.Module):
    """A block whose change is left out for a share of pictures while it learns; what is kept makes up for it."""

    def __init__(self, block: nn.Module, share: float) -> None:
        super().__init__()
        self.block, self.share = block, share

    def forward(self, x_BND: Tensor) -> Tensor:
        if not self.training or not self.share:
            return self.block(x_BND)
        kept = torch.rand(len(x_BND), 1, 1) >= self.share
        return x_BND + (self.block(x_BND) - x_BND) * kept / (1 - self.share)


@functools.cache
def teacher(seed: int, skipped: float, steps: int = TEACHER_STEPS) -> tuple[DigitTransformer, Tensor]:
    """A transformer that has learned digits, and its states (L + 1, pictures, N, D) of all of them.

    Args:
        skipped: share of blocks left out in training, growing from none at the first to this at the last.
    """
    torch.manual_seed(seed)
    model = DigitTransformer(width=WIDTH, layers=LAYERS, positions=True)
    for i, block in enumerate(list(model.blocks)):
        model.blocks[i] = SkippedAtTimes(block, skipped * i / (LAYERS - 1))
    teach_digits(model, seed, steps=steps)
    with torch.no_grad(), states(model.blocks) as seen:
        model(digits()[0])
    return model, torch.stack(seen)


def followed(seen_LBND: Tensor, blocks: int, seed: int, *, steps: int = STEPS) -> Tensor:
    """The states of held-out digits (L, held out, N, D) that as many blocks make, each for a phase of a teacher's."""
    runs = phases(similarity(list(seen_LBND[1:]), class_tokens=0), count=blocks)
    config = RaptorConfig(
        lengths=tuple(len(run) for run in runs), width=WIDTH, heads=4, expansion=2, class_tokens=0, registers=0,
        layer_scale=0.1,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Raptor(config)
    follow(model, seen_LBND[:, TEST:], steps=steps, rate=3e-3, batch=32, seed=seed)
    with torch.no_grad():
        return model(seen_LBND[0, :TEST])


def explained(made: Tensor, wanted: Tensor) -> float:
    """R2: share of how pictures differ, token by token, that is met."""
    return float(1 - (made - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())


def arm(*, skipped: float, blocks: int) -> Callable[[int], float]:
    """R2 of the last layer's states of held-out digits."""

    def run(seed: int) -> float:
        seen = teacher(seed, skipped)[1]
        return explained(followed(seen, blocks, seed)[-1], seen[-1, :TEST])

    return run


TRIAL = Trial(
    claim="a transformer trained with stochastic depth is followed better by recurrent blocks, and by more of them",
    measure="R2 of the states after the last layer, of held-out digits",
    higher_is_better=True,
    arms={
        "stochastic depth, two blocks": arm(skipped=0.4, blocks=2),
        "stochastic depth, one block": arm(skipped=0.4, blocks=1),
        "all blocks always, two blocks": arm(skipped=0.0, blocks=2),
    },
    against=("stochastic depth, one block", "all blocks always, two blocks"),
    task=f"scikit-learn's digits, a transformer of {LAYERS} layers of width {WIDTH} after {TEACHER_STEPS} steps of 64, "
    f"followed for {STEPS} steps of 32",
)
