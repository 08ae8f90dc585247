"""What is remembered of ACM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..acm import AcmConfig, AdaptiveModule, adaptive, auxiliary_loss, distil, modules_of
from ..numbers import numbers, whole_numbers
from ..remember import case, filled


def teacher() -> nn.Sequential:
    networks = (nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)) for _ in range(2))
    return filled(nn.Sequential(*networks))


@case("acm", "prefixes, learners of every token, losses and what is worth running")
@torch.no_grad()
def parts() -> list[object]:
    module, x, target = filled(AdaptiveModule(8, 16, 6, AcmConfig())), numbers((9, 8)), numbers((9, 6), 1)
    near = module.prefixes(x)[4] + 0.1 * target
    made = [
        module.prefixes(x), module.first(x, whole_numbers((9,), 5)), module(x), module.counts_R.double(),
        module.learner_loss(x, target), module.gate_loss(x, target), module.worth(x, near).double(),
    ]  # fmt: skip
    module.choose = lambda rows: whole_numbers((len(rows),), 5, 2)
    return [*made, module(x)]


@case("acm", "a network made adaptive, distilled for two steps in both phases", near=1e-5)
def distilled() -> list[object]:
    whole, made = teacher(), []
    for sliced in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            student = filled(adaptive(whole, AcmConfig(learners=2), sliced=sliced)) if not sliced else None
            student = student or adaptive(whole, AcmConfig(learners=2), sliced=True).eval()
        for module in modules_of(student):
            module.choose = lambda rows: torch.full((len(rows),), 2)
        with torch.no_grad():
            made.append(student(numbers((3, 5, 8))))
        for phase in ("learners", "gates"):
            losses = distil(filled(student), whole, [numbers((3, 5, 8), i) for i in range(3)], phase=phase)
            made.append(losses)
    return made


@case("acm", "the budget, and that choices differ")
@torch.no_grad()
def auxiliary() -> list[Tensor]:
    model = adaptive(teacher(), AcmConfig(learners=4))
    for seed, module in enumerate(modules_of(model)):
        module.counts_R = whole_numbers((12,), 5, seed).double()
    return [auxiliary_loss(model, share, samples) for share, samples in ((0.5, 3), (0.1, 1))]


@case("acm", "a choice in training: softly behind a hard one")
def training() -> list[Tensor]:
    module = filled(AdaptiveModule(8, 16, 6, AcmConfig(learners=2))).train()
    with torch.no_grad():
        module.gate[2].bias.copy_(torch.tensor([-60.0, 60.0, -60.0]))  # noise does not reach this far
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [module(numbers((4, 8))), module.counts_R]
