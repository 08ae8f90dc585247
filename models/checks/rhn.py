"""What holds exactly for the highway networks and the systems that they forecast."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..chaos import kuramoto_sivashinsky, lorenz96, runge_kutta, trajectory, two_scales
from ..companion import check
from ..rhn import Rhn, RhnConfig


def small(**settings: object) -> Rhn:
    torch.manual_seed(0)
    return Rhn(RhnConfig(variables=3, width=6, remembered=4, **settings)).double().eval()  # pyright: ignore[reportArgumentType]


def drawn(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@check("rhn", "two layers of coupled gates are the cell's formula, written out", at_most=1e-12)
@torch.no_grad()
def formula() -> float:
    model, x, s = small(), drawn(5, 3), torch.zeros(5, 6, dtype=torch.float64)
    for depth, layer in enumerate(model.cell):
        W, b = layer.get_parameter("weight"), layer.get_parameter("bias")
        told = x @ model.read.weight.T if depth == 0 else torch.zeros(5, 12, dtype=torch.float64)
        h = torch.tanh(told[:, :6] + s @ W[:6].T + b[:6])
        t = 1 / (1 + torch.exp(-(told[:, 6:] + s @ W[6:].T + b[6:])))
        s = h * t + s * (1 - t)
    return float((model.step(x, None)[1].state_BD - s).abs().max())


@check(
    "rhn", "step by step gives what the whole gives, and a forecast is steps that read what they wrote", at_most=1e-12
)
@torch.no_grad()
def streaming() -> float:
    model, x = small(gating="free"), drawn(2, 9, 3)
    whole, state = model(x), None
    made, worst = whole[:, 0], 0.0
    for t in range(9):
        made, state = model.step(x[:, t], state)
        worst = max(worst, float((made - whole[:, t]).abs().max()))
    again, _ = model.step(made, state)
    return max(worst, float((model.forecast(x, 2) - torch.stack([made, again], 1)).abs().max()))


@check("rhn", "gates that are shut keep the state, whatever is read", at_most=1e-12)
@torch.no_grad()
def shut() -> float:
    model = small(bias=1e3)
    return float(model.step(drawn(5, 3), None)[1].state_BD.abs().max())


@check("rhn", "attention is a softmax over the last states with a bias by distance, in float64", at_most=1e-6)
@torch.no_grad()
def attention() -> float:
    model, s, past = small(), drawn(2, 6), drawn(2, 3, 6)
    model.places_S.copy_(torch.tensor([9.0, 1.0, -1.0, 0.5]))
    scores = (past @ model.key.weight.T) @ (s @ model.query.weight.T)[..., None] / math.sqrt(6)
    weights = (scores[..., 0] + model.places_S[1:]).softmax(-1)
    expected = (weights[..., None] * (past @ model.value.weight.T)).sum(1)
    return float((model.recall(s, past) - expected).abs().max())


@check("rhn", "without forcing and friction, Lorenz 96 of both scales changes no energy", at_most=1e-12)
def energy() -> float:
    x = drawn(7, 40)
    one = (x * (lorenz96(x, forcing=0.0) + x)).sum(-1)
    y = drawn(7, 4 + 4 * 6)
    friction = torch.cat([y[:, :4], 10.0 * y[:, 4:]], 1)
    two = (y * (two_scales(y, slow=4, forcing=0.0) + friction)).sum(-1) / 1000
    return max(float(one.abs().max()), float(two.abs().max()))


@check("rhn", "fast variables that are 0 and not coupled leave Lorenz 96 of one scale", at_most=1e-12)
def one_scale() -> float:
    x = drawn(5, 8)
    both = two_scales(torch.cat([x, torch.zeros(5, 32, dtype=torch.float64)], 1), slow=8, coupling=0.0)
    return float(
        (both - torch.cat([lorenz96(x, forcing=10.0), torch.zeros(5, 32, dtype=torch.float64)], 1)).abs().max()
    )


def order(errors: list[float]) -> float:
    """Of convergence, from errors at a step and at half of it."""
    return math.log2(errors[0] / errors[1])


@check("rhn", "half the step leaves a 16th of the error on Lorenz 96: the order is 4, within 0.15")
def runge_kutta_order() -> float:
    start = 8 + 0.5 * drawn(12)
    ends = [trajectory(runge_kutta(lorenz96, 0.5 / n), start, n)[-1] for n in (32, 64, 512)]
    return max(0.0, abs(order([float((end - ends[-1]).norm()) for end in ends[:2]]) - 4) - 0.15)


@check("rhn", "the order on Kuramoto-Sivashinsky nears 4 from below, as stiff methods do: 3.6 to 4.1 at steps of 1/64")
def exponential_order() -> float:
    place = 2 * math.pi * torch.arange(32, dtype=torch.float64) / 32
    start = torch.cos(place) * (1 + torch.sin(place))
    ends = [trajectory(kuramoto_sivashinsky(32, 22.0, 1 / n), start, n)[-1] for n in (64, 128, 512)]
    found = order([float((end - ends[-1]).norm()) for end in ends[:2]])
    return max(0.0, 3.6 - found, found - 4.1)


@check(
    "rhn", "Kuramoto-Sivashinsky keeps its mean, and a state shifted around the period goes the same way", at_most=1e-10
)
def symmetry() -> float:
    step, u = kuramoto_sivashinsky(32, 22.0, 0.25), drawn(32)
    one, other = trajectory(step, u, 20), trajectory(step, u.roll(5), 20)
    return max(float((one.mean(-1) - u.mean()).abs().max()), float((one.roll(5, -1) - other).abs().max()))


@check("rhn", "a wave that is too small to bend grows by exp(q^2 - q^4) a unit of time", at_most=1e-6)
def growth() -> float:
    q = 2 * math.pi / 22
    u = 1e-8 * torch.cos(2 * math.pi * torch.arange(32, dtype=torch.float64) / 32)
    grown = trajectory(kuramoto_sivashinsky(32, 22.0, 0.25), u, 4)[-1]
    return float((grown / u.norm() - math.exp(q**2 - q**4) * u / u.norm()).abs().max())
