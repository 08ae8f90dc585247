"""What holds exactly for curves of activations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..companion import check
from ..massive import Curve, Place, fit_curve, predict_curve, ratio, ratios

EARLY = Curve(amplitude=8.0, decay=0.05, scale=1e-3, offset=1.2, level=3.0)
FALLING = Curve(amplitude=-5.0, decay=0.3, scale=4e-4, offset=1.05, level=10.0)
CURVES = (EARLY, Curve(amplitude=5.0, decay=0.01, scale=4e-4, offset=1.05, level=10.0), FALLING)


def times() -> Tensor:
    return torch.logspace(0, 5.1, 60, dtype=torch.float64)


@check("massive", "the slope of the curve is its derivative, relative to the largest", at_most=1e-12)
def slope() -> float:
    worst = 0.0
    for curve in CURVES:
        t = times().requires_grad_()
        (derivative,) = torch.autograd.grad(curve.at(t).sum(), t)
        worst = max(worst, float((derivative - curve.slope(times())).abs().max() / derivative.abs().max()))
    return worst


@check("massive", "the slope is 0 at the peak that Lambert's W gives, and the curve is largest at the step next to it")
def peak() -> float:
    steps = torch.arange(0, 80_000, dtype=torch.float64)
    wrong = 0.0
    for curve in CURVES:
        assert curve.peak is not None
        values = curve.at(steps) * math.copysign(1, curve.amplitude)
        wrong += max(0.0, abs(float(values.argmax()) - curve.peak) - 1)
        wrong += max(0.0, float(curve.slope(torch.tensor([curve.peak], dtype=torch.float64)).abs()) - 1e-12)
    return wrong


@check("massive", "a fit explains the curve that it was given, and its peak lies where that one's does", at_most=1e-5)
def recovered() -> float:
    worst = 0.0
    for curve in CURVES:
        found, fit = fit_curve(times(), curve.at(times()))
        assert curve.peak is not None and found.peak is not None
        worst = max(worst, 1 - fit.r_squared, abs(found.peak / curve.peak - 1))
    return worst


@check("massive", "with 2 % noise a fit still explains 99 % of an early peak, and finds it within 4 %")
def noisy() -> float:
    values, generator = EARLY.at(times()), torch.Generator().manual_seed(0)
    noise = torch.randn(60, generator=generator, dtype=torch.float64) * 0.02 * (values.max() - values.min())
    found, fit = fit_curve(times(), values + noise)
    assert EARLY.peak is not None and found.peak is not None
    return max(0.0, 0.99 - fit.r_squared) + max(0.0, abs(found.peak / EARLY.peak - 1) - 0.04)


@check("massive", "the curve made of a fit's numbers is the fit", at_most=1e-10)
def same() -> float:
    found, fit = fit_curve(times(), FALLING.at(times()).square())
    return float((found.at(times()) - fit.values_N).abs().max())


@check("massive", "ratios behind blocks are largest over median by hand, and no hook stays", at_most=1e-12)
def hooks() -> float:
    blocks = nn.Sequential(nn.Linear(5, 7), nn.Identity()).double()
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with ratios(blocks) as seen:
        made = blocks(x)
    ordered = made.detach().abs().flatten(1).sort(1).values
    by_hand = float((ordered[:, -1] / ordered[:, 13]).mean())
    left = sum(len(block._forward_hooks) for block in blocks)
    return abs(seen[0] - by_hand) + abs(seen[1] - ratio(made)) + left


@check("massive", "parameters that are log-linear in depth are predicted for a layer left out", at_most=1e-3)
def predicted() -> float:
    def curve(layer: int) -> Curve:
        grown = math.expm1(0.5 + (layer + 1) / 8)
        return Curve(amplitude=grown, decay=grown / 9, scale=grown / 5, offset=grown, level=-grown)

    places = {layer: Place(layer=layer, layers=8, width=64, heads=4, hidden=256) for layer in range(8)}
    known = [(places[layer], curve(layer)) for layer in range(8) if layer != 4]
    told = predict_curve(known, places[4], penalty=1e-9)
    return max(abs(told.amplitude / curve(4).amplitude - 1), abs(told.level / curve(4).level - 1))
