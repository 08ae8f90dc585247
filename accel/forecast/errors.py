"""How far off forecasts and interpolations prove to be, in the clean picture and at the distance that was skipped.

Whenever a step is computed, what each order would have forecast there from the steps computed before, fed back to the
latents that the solver holds now, is compared with the truth; and what each degree of the replay would have put in the
place of the computed step before is compared with what that was. No denoiser is called: this is arithmetic on latents.

Shapes: rows of latents, flattened where norms are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ...kernels.forecast import combine, lagrange_weights
from .prediction import Prediction
from .replay import Entry

HIGHEST = 2
"""Orders and degrees up to this one are measured."""


@dataclass(slots=True)
class Measured:
    """What one row measured at one computed step."""

    step: int
    gap: int
    """Steps since the computed step before."""
    forecast: list[float]
    """Error of a forecast of order 0, 1, 2, as far as there were steps to make it from: L2 norm over that of the clean
    picture."""
    replay: list[float] = field(default_factory=list)
    """Error of degree 1, 2 of the replay at the computed step before, from its neighbours; of twice the distance."""


def measure(prediction: Prediction, entries: Sequence[Entry], now: Entry, rows: Sequence[int]) -> dict[int, Measured]:
    """What can be measured of `rows` at `now`, which was computed in them; rows without a computed step before are
    left out."""
    found: dict[int, Measured] = {}
    values: list[torch.Tensor] = []
    places: list[tuple[list[float], int]] = []
    for row in rows:
        known = [e for e in reversed(entries) if e.computed[row] and e.step < now.step][: HIGHEST + 1]
        if not known:
            continue
        truth = now.clean[row].float()
        scale = truth.norm().clamp_min(1e-12)
        found[row] = made = Measured(now.step, now.step - known[0].step, [], [])
        for order in range(len(known)):
            nodes = known[: order + 1]
            weights = lagrange_weights([float(n.step) for n in nodes], float(now.step))
            guess = fed_back(prediction, nodes, weights, row, now)
            values.append((guess - truth).norm() / scale)
            places.append((made.forecast, order))
        middle, outer = known[0], [now, *known[1:]]
        for degree in range(1, min(HIGHEST, len(outer) - 1) + 1):
            nodes = outer[: degree + 1]
            weights = lagrange_weights([n.u for n in nodes], middle.u)
            belongs = combine([n.seen[row] for n in nodes], weights).float()
            clean = combine([n.clean[row] for n in nodes], weights).float()
            guess = clean + prediction.gain(middle.u) * (middle.sample[row].float() - belongs)
            values.append((guess - middle.clean[row].float()).norm() / scale)
            places.append((made.replay, degree))
    if values:
        for (kept, _), value in zip(places, torch.stack(values).tolist(), strict=True):
            kept.append(value)
    return found


def fed_back(
    prediction: Prediction, nodes: Sequence[Entry], weights: Sequence[float], row: int, now: Entry
) -> torch.Tensor:
    """The clean picture that a forecast of the denoiser's output gives, moved to the latents held at `now`."""
    outputs = [prediction.output(n.u, n.seen[row], n.clean[row]) for n in nodes]
    belongs = combine([n.seen[row] for n in nodes], list(weights)).float()
    held = now.sample[row].float()
    output = combine(outputs, list(weights))
    there = prediction.clean(now.u, belongs, output)
    return there + prediction.gain(now.u) * (held - belongs)
