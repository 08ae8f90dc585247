"""How far off forecasts and interpolations prove to be, in the clean picture and at the distance that was skipped.

Whenever a step is computed, what each order would have forecast there from the steps computed before, fed back to the
latents that the solver holds now, is compared with the truth; and what each degree of the replay would have put in the
place of the computed step before is compared with what that was. No denoiser is called: this is arithmetic on latents.

Where the error would have been least between two orders is solved for: with forecasts f_0, f_1, f_2 and the truth t,
|t - f_0 - a (f_1 - f_0)| is least at a = <t - f_0, f_1 - f_0> / |f_1 - f_0|^2, which is read as the order a; likewise
from order 1 to 2. Noise in what a slope is taken from makes a smaller: the forecast is damped by as much as it proved
to deserve.

Shapes: rows of latents, flattened where norms are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...kernels.forecast import combine, lagrange_weights
from ..prediction import Prediction
from .replay import Entry, belonging

HIGHEST = 2
"""Orders and degrees up to this one are measured."""

TOLD = 0.1
"""How much the output has to change with the clean picture, at least, to tell anything of it."""


@dataclass(frozen=True, slots=True)
class Best:
    """The order, or degree, at which an error would have been least."""

    order: float
    error: float
    """L2 norm over that of the clean picture."""
    errors: tuple[float, ...]
    """Those of the whole orders, from the lowest."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one row measured at one computed step."""

    step: int
    gap: int
    """Steps since the computed step before."""
    forecast: Best
    """Of orders 0 to 2, as far as there were steps to make a forecast from."""
    replay: Best | None
    """Of degrees 1 and 2 of the replay, at the computed step before and from its neighbours: of twice the distance.
    None where there were not yet three computed steps."""


def measure(prediction: Prediction, entries: Sequence[Entry], now: Entry, rows: Sequence[int]) -> dict[int, Measured]:
    """What can be measured of `rows` at `now`, which was computed in them; rows without a computed step before are
    left out. Everything is read from the device at once."""
    gaps: dict[int, int] = {}
    products: list[torch.Tensor] = []
    kinds: list[tuple[int, bool, int]] = []
    for row in rows:
        known: list[Entry] = []
        levels = {now.u}  # solvers with two stages a step visit a level twice
        for entry in reversed(entries):
            if entry.computed[row] and entry.step < now.step and entry.u not in levels and len(known) <= HIGHEST:
                known.append(entry)
                levels.add(entry.u)
        if not known:
            continue
        gaps[row] = now.step - known[0].step
        truth = now.clean[row].float()
        guesses = [_forecast(prediction, known[: order + 1], row, now) for order in range(len(known))]
        kinds.append((row, True, len(guesses)))
        products.append(_products(truth, guesses))
        middle, outer = known[0], [now, *known[1:]]
        guesses = [
            _between(prediction, outer[: degree + 1], row, middle)
            for degree in range(1, min(HIGHEST, len(outer) - 1) + 1)
        ]
        if guesses:
            kinds.append((row, False, len(guesses)))
            products.append(_products(middle.pair[1][row].float(), guesses))
    found: dict[int, dict[bool, Best]] = {}
    if products:
        read = torch.cat(products).tolist()
        for row, forward, count in kinds:
            size = 1 + count + 2 * (count - 1)
            numbers, read = read[:size], read[size:]
            found.setdefault(row, {})[forward] = _best(numbers, count, 0 if forward else 1)
    return {row: Measured(now.step, gaps[row], best[True], best.get(False)) for row, best in found.items()}


def off_scale(prediction: Prediction, now: Entry) -> list[float] | None:
    """How far the clean picture of every row is from the size of pictures, as a share of the denoiser's output.

    Latents are scaled so that pictures have a root mean square of 1. A clean picture that a denoiser predicts from
    noise and that is smaller is one that it hardly knows yet, and one that is larger is guidance's doing; either is
    bound to change soon, and with it the output, by as much as when the picture had that size. None where the output
    says next to nothing of the clean picture: noise that is predicted from nearly pure noise. Everything is read from
    the device at once. Shapes: one number for each row of `now`.
    """
    if abs(float(prediction.output(now.u, torch.zeros(()), torch.ones(())))) < TOLD:
        return None
    clean = now.clean.float().flatten(1)
    unit = clean * (clean.shape[1] ** 0.5 / clean.norm(dim=1, keepdim=True).clamp_min(1e-6))
    output = prediction.output(now.u, now.seen, now.clean).flatten(1)
    changed = prediction.output(now.u, now.seen, unit.view_as(now.clean)).flatten(1)
    return ((changed - output).norm(dim=1) / output.norm(dim=1).clamp_min(1e-12)).tolist()


def _products(truth: torch.Tensor, guesses: Sequence[torch.Tensor]) -> torch.Tensor:
    """|truth|^2, the squared error of every guess, and, from each to the next, the squared length of the way and the
    error along it."""
    errors = [truth - guess for guess in guesses]
    squares = [truth.square().sum(), *(error.square().sum() for error in errors)]
    ways = []
    for error, a, b in zip(errors, guesses, guesses[1:], strict=False):
        way = b - a
        ways += [way.square().sum(), (error * way).sum()]
    return torch.stack([*squares, *ways])


def _best(numbers: Sequence[float], count: int, lowest: int) -> Best:
    """The least error along the way from the lowest order to the highest.

    Args:
        numbers: as `_products` gives them, of `count` guesses.
    """
    scale = max(numbers[0], 1e-24) ** 0.5
    squares, ways = numbers[1 : 1 + count], numbers[1 + count :]
    order, least = float(lowest), squares[0]
    for place in range(count - 1):
        length, along = ways[2 * place : 2 * place + 2]
        at = min(1.0, max(0.0, along / length)) if length > 0 else 0.0
        error = max(0.0, squares[place] - 2.0 * at * along + at * at * length)
        if error < least:
            order, least = lowest + place + at, error
    return Best(order, least**0.5 / scale, tuple(square**0.5 / scale for square in squares))


def _forecast(prediction: Prediction, nodes: Sequence[Entry], row: int, now: Entry) -> torch.Tensor:
    """The clean picture that a forecast of the denoiser's output gives, moved to the latents held at `now`."""
    weights = lagrange_weights([float(n.step) for n in nodes], float(now.step))
    outputs = [prediction.output(n.u, n.seen[row], n.clean[row]) for n in nodes]
    there, belongs = belonging(prediction, nodes, weights, row, now.u, combine(outputs, weights))
    return there + prediction.gain(now.u) * (now.sample[row].float() - belongs)


def _between(prediction: Prediction, nodes: Sequence[Entry], row: int, middle: Entry) -> torch.Tensor:
    """The clean picture that an interpolation puts in the place of `middle`, moved to the latents held there."""
    weights = lagrange_weights([n.u for n in nodes], middle.u)
    belongs = combine([n.pair[0][row] for n in nodes], weights).float()
    clean = combine([n.pair[1][row] for n in nodes], weights).float()
    return clean + prediction.gain(middle.u) * (middle.pair[0][row].float() - belongs)
