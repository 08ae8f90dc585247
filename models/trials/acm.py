"""ACM in small: a trained language model of bytes at half of its feed-forward work."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError
from ..acm import AcmConfig, adaptive, auxiliary_loss, distil, modules_of
from ..gam import Gam, GamConfig
from .data import BYTES, python_source, windows
from .fit import fit
from .trial import Trial

STEPS, TUNING, WIDTH, LENGTH, BATCH = 250, 120, 64, 64, 16
BUDGET, FIXED = 0.45, 2


def batches(seed: int, steps: int) -> Iterator[Tensor]:
    """The inputs of so many steps."""
    generator = torch.Generator().manual_seed(seed)
    return (windows(python_source()[0], BATCH, LENGTH - 1, generator) for _ in range(steps))


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Nats a byte."""
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def held_out(model: nn.Module) -> float:
    """The loss on text that was not trained on."""
    return float(loss_of(model.eval(), windows(python_source()[1], 128, LENGTH, torch.Generator().manual_seed(0))))


@functools.cache
def trained(seed: int) -> nn.Module:
    """The model that all arms of a seed adapt."""
    torch.manual_seed(seed)
    model = Gam(GamConfig(vocabulary=BYTES, length=LENGTH, width=WIDTH, layers=3, memories=32, dropout=0.0))
    text = batches(seed, STEPS)
    fit(model, lambda _step: loss_of(model, next(text)), steps=STEPS)
    return model


@functools.cache
def learners(seed: int) -> nn.Module:
    """Its networks as learners, distilled."""
    torch.manual_seed(seed)
    student = adaptive(trained(seed), AcmConfig())
    distil(student, trained(seed), batches(seed + 100, TUNING), phase="learners", rate=3e-3)
    return student


def gated(seed: int) -> float:
    """Gates learn labels, then everything learns the task within the budget."""
    torch.manual_seed(seed)
    student = adaptive_copy(seed)
    distil(student, trained(seed), batches(seed + 200, TUNING // 2), phase="gates")
    text = batches(seed + 300, TUNING)

    def loss(_step: int) -> Tensor:
        tokens = next(text)
        return loss_of(student, tokens) + 10 * auxiliary_loss(student, BUDGET, len(tokens))

    fit(student, loss, steps=TUNING, rate=1e-3)
    found = held_out(student)
    share = torch.cat([module.counts_R for module in modules_of(student)]).double().mean() / AcmConfig().learners
    if share > FIXED / AcmConfig().learners:
        raise ConfigError(f"the gates ran {share:.1%} of the learners, more than what they are held against")
    return found


def fixed(seed: int) -> float:
    """As many learners for every token, tuned for as long."""
    torch.manual_seed(seed)
    student, text = adaptive_copy(seed), batches(seed + 300, TUNING)
    for module in modules_of(student):
        module.choose = lambda rows: torch.full((len(rows),), FIXED)
    fit(student, lambda _step: loss_of(student, next(text)), steps=TUNING, rate=1e-3)
    return held_out(student)


def adaptive_copy(seed: int) -> nn.Module:
    """The distilled learners, to be changed."""
    student = adaptive(trained(seed), AcmConfig())
    student.load_state_dict(learners(seed).state_dict())
    return student


ARMS: dict[str, Callable[[int], float]] = {
    "by token": gated,
    "two of four": fixed,
    "the trained model": lambda seed: held_out(trained(seed)),
}
TRIAL = Trial(
    claim="at no more work, choosing the number of learners by token is better than one number for all",
    measure="loss on held-out Python source, nats a byte",
    higher_is_better=False,
    arms=ARMS,
    against=("two of four",),
    task=f"bytes, 3 GAM blocks of width {WIDTH}, {STEPS} steps, then {TUNING} of distillation and {TUNING} of tuning; "
    f"gates run at most half of 4 learners, aiming at {BUDGET}",
)
