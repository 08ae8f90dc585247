"""What holds exactly for AlgoFormer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..algoformer import AlgoFormer, AlgoFormerConfig, descent_loop, newton_loop
from ..companion import check


def small(**settings: object) -> AlgoFormer:
    torch.manual_seed(0)
    sizes: dict = {"inputs": 3, "examples": 6, "width": 8, "heads": 2, "loops": 3, **settings}
    return AlgoFormer(AlgoFormerConfig(**sizes)).double().eval()


def task() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((2, 6, 3), (2, 6)))  # pyright: ignore[reportReturnType]


@check("algoformer", "25 loops of linear attention are 25 steps of gradient descent on least squares", at_most=1e-12)
def descent() -> float:
    x, y = task()
    left = torch.cat([y[:, :5], torch.zeros(2, 1, dtype=torch.float64)], 1)
    weights = torch.zeros(2, 3, 1, dtype=torch.float64)
    for _ in range(25):
        left = descent_loop(x, left, 0.1, examples=5)
        weights = weights - 0.1 / 5 * x[:, :5].mT @ (x[:, :5] @ weights - y[:, :5, None])
    return float((left[:, 5] + (x[:, 5:] @ weights)[:, 0, 0]).abs().max())


@check("algoformer", "ten loops of Newton's iteration invert a matrix", at_most=1e-12)
def newton() -> float:
    x, _ = task()
    S = x.mT @ x + torch.eye(3, dtype=torch.float64)
    inverse = S / (S.abs().sum(1).amax(1) * S.abs().sum(2).amax(1))[:, None, None]
    for _ in range(10):
        inverse = newton_loop(inverse, S)
    return float((inverse @ S - torch.eye(3, dtype=torch.float64)).abs().max())


@check(
    "algoformer", "a loop that runs three times is three blocks with the same weights, one after another", at_most=1e-12
)
@torch.no_grad()
def unrolled() -> float:
    one, x, y = small(), *task()
    plain = copy.deepcopy(one)
    plain.looped.extend([copy.deepcopy(one.looped[0]) for _ in range(2)])
    return float((plain(x, y, loops=1) - one(x, y)).abs().max())


@check("algoformer", "the gradient of the looped block is the sum of those of its copies", at_most=1e-12)
def gradient() -> float:
    one, x, y = small(), *task()
    plain = copy.deepcopy(one)
    plain.looped.extend([copy.deepcopy(one.looped[0]) for _ in range(2)])
    one(x, y, trained=3)[-1].square().sum().backward()
    plain(x, y, loops=1)[-1].square().sum().backward()
    worst = 0.0
    for name, parameter in one.looped[0].named_parameters():
        copies = [block.get_parameter(name).grad for block in plain.looped]
        assert parameter.grad is not None
        total = torch.stack([grad for grad in copies if grad is not None]).sum(0)
        worst = max(worst, float((parameter.grad - total).abs().max()))
    return worst


@check("algoformer", "training on the last loops alone changes nothing that is said")
def truncated() -> float:
    one, x, y = small(injection="add"), *task()
    return float((one(x, y, trained=2) - one(x, y, trained=3)[1:]).detach().abs().max())


@check("algoformer", "a changed value changes nothing that is said of its own input and those before")
@torch.no_grad()
def causal() -> float:
    one, x, y = small(), *task()
    other = y.clone()
    other[:, 3] += 1
    before, after = one(x, y), one(x, other)
    assert float((before - after)[..., 4:].abs().min()) > 0
    return float((before - after)[..., :4].abs().max())
