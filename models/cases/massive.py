"""What is remembered of massive activations."""

from __future__ import annotations

import torch
from torch import nn

from ..massive import FORMS, Curve, Place, fit_curve, fit_form, predict_curve, ratio, ratios
from ..numbers import numbers
from ..remember import case

TIMES = torch.linspace(0, 400, 21).double()
CURVES = (
    Curve(amplitude=3.0, decay=0.2, scale=0.05, offset=1.2, level=2.0),
    Curve(amplitude=-2.0, decay=0.0, scale=0.1, offset=0.5, level=5.0),
    Curve(amplitude=1.0, decay=1.5, scale=0.01, offset=0.3, level=1.0),
)


@case("massive", "ratios, curves, slopes, peaks and columns of the forms")
@torch.no_grad()
def curves() -> list[object]:
    blocks = [nn.Linear(6, 6, dtype=torch.float64) for _ in range(2)]
    for seed, block in enumerate(blocks):
        block.weight.copy_(numbers((6, 6), seed))
        block.bias.copy_(numbers((6,), seed + 7))
    x = numbers((3, 5, 6)).pow(3)
    with ratios(blocks) as seen:
        blocks[1](blocks[0](x))
    made: list[object] = [ratio(x), list(seen)]
    for curve in CURVES:
        made += [curve.at(TIMES), curve.slope(TIMES), curve.peak or -1.0]
    return [*made, *(basis(TIMES / 100, 0.3, 0.7) for basis, _ in FORMS.values())]


@case("massive", "fits of three forms, the curve of a fit, a curve predicted from others", near=1e-4)
def fits() -> list[object]:
    values = CURVES[0].at(TIMES) + 0.05 * numbers(TIMES.shape, 1)
    made: list[object] = []
    for form in FORMS:
        fit = fit_form(TIMES, values, form)
        made += [fit.values_N, fit.r_squared, fit.aic]
    curve, fit = fit_curve(TIMES, values)
    places = [Place(layer=i, layers=4, width=64, heads=4, hidden=256) for i in range(3)]
    asked = Place(layer=3, layers=4, width=96, heads=4, hidden=256)
    told = [predict_curve(list(zip(places, CURVES, strict=True)), asked, penalty=p) for p in (1e-2, 1.0)]
    return [*made, curve.at(TIMES), fit.r_squared, told, places[2].features()]
