"""What holds exactly for Adaptive Computation Modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..acm import AcmConfig, AdaptiveModule, adaptive, auxiliary_loss, distil, modules_of
from ..companion import check


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def teacher() -> nn.Sequential:
    torch.manual_seed(0)
    networks = (nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)) for _ in range(2))
    return nn.Sequential(*networks).double()


def module() -> AdaptiveModule:
    torch.manual_seed(0)
    return AdaptiveModule(8, 16, 6, AcmConfig()).double()


@check("acm", "running only the chosen learners gives the prefix sum, for every count, none and all", at_most=1e-12)
@torch.no_grad()
def gathered() -> float:
    one, x, worst = module(), numbers(20, 8), 0.0
    for count in (torch.arange(20) % 5, torch.zeros(20, dtype=torch.long), torch.full((20,), 4)):
        worst = max(worst, float((one.first(x, count) - one.prefixes(x)[count, torch.arange(20)]).abs().max()))
    return worst


@check("acm", "all learners cut from a trained network are that network", at_most=1e-12)
@torch.no_grad()
def lossless() -> float:
    model, x = teacher(), numbers(3, 5, 8)
    student = adaptive(model, AcmConfig(), sliced=True).eval()
    for one in modules_of(student):
        one.choose = lambda rows: torch.full((len(rows),), 4)
    return float((student(x) - model(x)).abs().max())


@check("acm", "in training the output is that of the hard choice, and gates have a gradient", at_most=1e-12)
def straight_through() -> float:
    one, x = module(), numbers(20, 8)
    torch.manual_seed(3)
    out = one(x)
    out.square().sum().backward()
    gradient = one.gate.get_parameter("0.weight").grad
    assert gradient is not None
    far = (out - one.first(x, one.counts_R.detach().round().long())).detach().abs().max()
    return float(far) if gradient.abs().sum() > 0 else 1.0


@check("acm", "labels stop before the first learner that improves by less than a fifth")
def labels() -> float:
    one, x = module(), numbers(50, 8)
    target = one.prefixes(x).detach()[2] + 1e-6 * numbers(50, 6)
    errors = (one.prefixes(x) - target).norm(dim=-1).tolist()
    by_hand = [next((n for n in range(4) if errors[n][row] < 1.2 * errors[n + 1][row]), 4) for row in range(50)]
    return float((one.worth(x, target) != torch.tensor(by_hand)).sum())


@check("acm", "the budget of a model that runs half of its learners, all tokens alike, is met exactly", at_most=1e-12)
def budget() -> float:
    student = adaptive(teacher(), AcmConfig())
    for one in modules_of(student):
        one.counts_R = torch.full((12,), 2.0, dtype=torch.float64)
    return float(auxiliary_loss(student, 0.5, 3).abs() + (auxiliary_loss(student, 1.0, 3) - 0.05).abs())


@check("acm", "distilling lowers the error of learners and the loss of gates to less than nine tenths", at_most=0.9)
def learns() -> float:
    model = teacher()
    student = adaptive(model, AcmConfig())
    batches = [numbers(16, 8)] * 40
    learners = distil(student, model, batches, phase="learners", rate=1e-2)
    gates = distil(student, model, batches, phase="gates")
    return max(learners[-1] / learners[0], gates[-1] / gates[0])
