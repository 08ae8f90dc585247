"""GCAB's claim in small: digits two by two, and how well all of them are told apart at the end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..gcab import Batches, Gcab, GcabConfig, learn_task
from .digits import TEST, digits
from .trial import Trial

TASKS, EPOCHS, BATCH = 5, 40, 64


def config_of(*, gated: bool = True, cascade: bool = True, drift_weight: float = 2.0) -> GcabConfig:
    """Of digits of 8 x 8 pixels."""
    return GcabConfig(
        tasks=TASKS, width=48, heads=4, blocks=2, expansion=2, picture=8, patch=2, channels=1, largest_scale=400.0,
        gated=gated, cascade=cascade, drift_weight=drift_weight,
    )  # fmt: skip


def learn_digits(config: GcabConfig, seed: int, *, epochs: int = EPOCHS) -> tuple[Gcab, list[list[float]]]:
    """A model, and after each task the share of held-out digits named right of each task, which is told."""
    torch.manual_seed(seed)
    model, generator = Gcab(config), torch.Generator().manual_seed(seed)
    pictures, classes = digits()
    after = []
    for task in range(TASKS):
        mine = (classes // 2 == task).nonzero().flatten()
        rows = mine[mine >= TEST]

        def epoch(rows: Tensor = rows) -> Batches:
            order = rows[torch.randperm(len(rows), generator=generator)]
            return [(pictures[chosen], classes[chosen] % 2) for chosen in order.split(BATCH)]

        learn_task(model, 2, (epoch() for _ in range(epochs)))
        after.append(by_task(model, pictures[:TEST], classes[:TEST]))
    return model, after


@torch.no_grad()
def by_task(model: Gcab, pictures: Tensor, classes: Tensor) -> list[float]:
    """Share named right of the two classes of each task learned."""
    shares = []
    for task, logits in enumerate(model(pictures).split(2, 1)):
        mine = classes // 2 == task
        shares.append(float((logits[mine].argmax(1) == classes[mine] % 2).float().mean()))
    return shares


def arm(config: GcabConfig) -> Callable[[int], float]:
    """The mean over tasks once all are learned."""

    def run(seed: int) -> float:
        last = learn_digits(config, seed)[1][-1]
        return sum(last) / len(last)

    return run


TRIAL = Trial(
    claim="gates and cascaded projectors together forget less than fine-tuning and than gates without the cascade",
    measure="share of held-out digits named right, the task being told, mean over tasks after the last",
    higher_is_better=True,
    arms={
        "gates and cascade": arm(config_of()),
        "fine-tuning": arm(config_of(gated=False, drift_weight=0.0)),
        "gates without the cascade": arm(config_of(cascade=False)),
        "gates alone": arm(config_of(drift_weight=0.0)),
    },
    against=("fine-tuning", "gates without the cascade"),
    task=f"scikit-learn's digits, {TASKS} tasks of two classes, {EPOCHS} epochs each, two blocks of width 48",
)
