"""What holds exactly for WideNet."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from ..companion import check
from ..widenet import WideNet, WideNetConfig, route

SMALL = {"width": 16, "layers": 3, "heads": 2, "hidden": 24, "image": 8, "patch": 2, "classes": 5}


def model_of(**changes: object) -> WideNet:
    torch.manual_seed(0)
    return WideNet(WideNetConfig(**{**SMALL, **changes})).double()  # pyright: ignore[reportArgumentType]


def pictures() -> Tensor:
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@check("widenet", "sorting tokens by expert is the dense formula with every expert on every token", at_most=1e-12)
@torch.no_grad()
def dense() -> float:
    block = model_of().block
    torch.nn.init.normal_(block.down_bias_EO)
    x = torch.randn(2, 16, 16, dtype=torch.float64)
    routed = route(block.router(x.flatten(0, 1)).softmax(-1), 2, 1.2)
    gates = x.new_zeros(32, 4).scatter_add(1, routed.index_NK, routed.gates_NK)
    hidden = F.gelu(torch.einsum("nd,edh->neh", x.flatten(0, 1), block.up_EDH) + block.up_bias_EH)
    each = torch.einsum("neh,eho->neo", hidden, block.down_EHO) + block.down_bias_EO
    return float((block.mix(x)[0].flatten(0, 1) - (gates[..., None] * each).sum(1)).abs().max())


@check("widenet", "one expert is a shared dense block: x + FFN(LN(x)) at every depth", at_most=1e-12)
@torch.no_grad()
def one_expert() -> float:
    model = model_of(experts=1, active=1)
    x, block = model.patches(pictures()).flatten(2).mT + model.positions, model.block
    for norm1, norm2 in zip(model.norms1, model.norms2, strict=True):
        x = x + block.attend(norm1(x))
        hidden = F.gelu(F.linear(norm2(x), block.up_EDH[0].mT, block.up_bias_EH[0]))
        x = x + F.linear(hidden, block.down_EHO[0].mT, block.down_bias_EO[0])
    expected = model.head(model.representation(model.norm(x).mean(1)).tanh())
    return float((model(pictures()) - expected).abs().max())


@check("widenet", "the shared gradient is the sum of the gradients of copies for each depth", at_most=1e-12)
def shared() -> float:
    model = model_of(capacity=9.0)
    model(pictures()).square().sum().backward()
    blocks = [copy.deepcopy(model.block) for _ in range(SMALL["layers"])]
    x = model.patches(pictures()).flatten(2).mT + model.positions
    for block, norm1, norm2 in zip(blocks, model.norms1, model.norms2, strict=True):
        block.zero_grad()
        x = x + block.attend(norm1(x))
        x = x + block.mix(norm2(x))[0]
    model.head(model.representation(model.norm(x).mean(1)).tanh()).square().sum().backward()
    worst = 0.0
    for name, parameter in model.block.named_parameters():
        grads = [block.get_parameter(name).grad for block in blocks]
        total = sum(torch.zeros_like(parameter) if grad is None else grad for grad in grads)
        assert parameter.grad is not None
        worst = max(worst, float((parameter.grad - total).abs().max()))
    return worst


@check(
    "widenet",
    "the balance loss is 1 where all experts are used alike, and the number of experts at worst",
    at_most=1e-12,
)
def balance() -> float:
    even = torch.eye(4, dtype=torch.float64).repeat(3, 1)
    worst = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64).expand(12, 4)
    return abs(float(route(even, 1, 9.0).balance) - 1) + abs(float(route(worst, 1, 9.0).balance) - 4)


@check("widenet", "a full expert takes no more: the first tokens of 1.2 K N / E, the others get gate 0")
def capacity() -> float:
    chosen = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).expand(20, 4)
    kept = route(chosen, 1, 1.2).gates_NK[:, 0] > 0
    return float(not torch.equal(kept, torch.arange(20) < 6))
