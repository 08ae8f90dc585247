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

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...kernels.forecast import lagrange_weights
from ..prediction import Prediction
from .entries import HIGHEST, Entry, Group, carried, grouped, newest, weighted

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
    before = [entry for entry in entries if entry.step < now.step]
    groups = grouped(rows, lambda row: newest(before, row, HIGHEST + 1, now.u) or None)
    products: list[torch.Tensor] = []
    for places, some in groups.items():
        group = Group(some, now.clean)
        here, known = now.of(group), [before[place].of(group) for place in places]
        products.append(_products(here.clean, _forecasts(prediction, known, here)))
        if len(known) > 1:
            middle = known[0]
            products.append(_products(middle.pair[1], _between(prediction, [here, *known[1:]], middle)))
    if not products:
        return {}
    found: dict[int, Measured] = {}
    read = torch.cat([some.flatten() for some in products]).tolist()
    for places, some in groups.items():
        best: list[list[Best]] = []
        for lowest, count in ((0, len(places)), (1, len(places) - 1)):
            size = (3 * count - 1) * len(some) if count else 0
            numbers, read = read[:size], read[size:]
            best.append([_best(numbers[i :: len(some)], count, lowest) for i in range(len(some))] if count else [])
        for i, row in enumerate(some):
            gap = now.step - before[places[0]].step
            found[row] = Measured(now.step, gap, best[0][i], best[1][i] if best[1] else None)
    return found


def off_scale(prediction: Prediction, now: Entry) -> list[float] | None:
    """How far the clean picture of every row is from the size of pictures, as a share of the denoiser's output.

    Latents are scaled so that pictures have a root mean square of 1. A clean picture that a denoiser predicts from
    noise and that is smaller is one that it hardly knows yet, and one that is larger is guidance's doing; either is
    bound to change soon, and with it the output, by as much as when the picture had that size. None where the output
    says next to nothing of the clean picture: noise that is predicted from nearly pure noise. Everything is read from
    the device at once. Shapes: one number for each row of `now`.
    """
    told = abs(float(prediction.output(now.u, torch.zeros(()), torch.ones(()))))
    if told < TOLD:
        return None
    output = prediction.output(now.u, now.seen, now.clean)
    clean, output = (x.float().flatten(1).norm(dim=1) for x in (now.clean, output))
    size = math.sqrt(now.clean[0].numel())
    return (told * (clean - size).abs() / output.clamp_min(1e-12)).tolist()


def _products(truth: torch.Tensor, guesses: Sequence[torch.Tensor]) -> torch.Tensor:
    """|truth|^2, the squared error of every guess, and, from each to the next, the squared lengths of the ways and the
    errors along them. Shapes: (R, ...) each -> (3 guesses - 1, R)."""
    truth, guessed = truth.float().flatten(1), torch.stack(list(guesses)).float().flatten(2)
    errors, ways = truth - guessed, guessed[1:] - guessed[:-1]
    return torch.cat([x.sum(2) for x in (truth.square()[None], errors.square(), ways.square(), errors[:-1] * ways)])


def _best(numbers: Sequence[float], count: int, lowest: int) -> Best:
    """The least error along the way from the lowest order to the highest.

    Args:
        numbers: as `_products` gives them, of `count` guesses.
    """
    scale = max(numbers[0], 1e-24) ** 0.5
    squares, lengths, alongs = numbers[1 : 1 + count], numbers[1 + count : 2 * count], numbers[2 * count :]
    order, least = float(lowest), squares[0]
    for place, (length, along) in enumerate(zip(lengths, alongs, strict=True)):
        at = min(1.0, max(0.0, along / length)) if length > 0 else 0.0
        error = max(0.0, squares[place] - 2.0 * at * along + at * at * length)
        if error < least:
            order, least = lowest + place + at, error
    return Best(order, least**0.5 / scale, tuple(square**0.5 / scale for square in squares))


def _forecasts(prediction: Prediction, known: Sequence[Entry], now: Entry) -> list[torch.Tensor]:
    """The clean pictures that forecasts of the denoiser's output give, of every order, moved to the latents held at
    `now`.

    Args:
        known: the steps that they are made from, newest first.
    """
    gain, steps = prediction.gain(now.u), [float(node.step) for node in known]
    moved = [carried(prediction, node, now.u).sub_(node.pair[0], alpha=gain) for node in known]
    weights = [lagrange_weights(steps[: order + 1], float(now.step)) for order in range(len(known))]
    return [weighted(moved[: len(some)], some).add_(now.sample, alpha=gain) for some in weights]


def _between(prediction: Prediction, outer: Sequence[Entry], middle: Entry) -> list[torch.Tensor]:
    """The clean pictures that interpolations put in the place of `middle`, of every degree, moved to the latents held
    there.

    Args:
        outer: the steps that they are made from, the newest (which lies beyond) first.
    """
    gain, levels = prediction.gain(middle.u), [node.u for node in outer]
    moved = [node.pair[1].sub(node.pair[0], alpha=gain) for node in outer]
    weights = [lagrange_weights(levels[: degree + 1], middle.u) for degree in range(1, len(outer))]
    return [weighted(moved[: len(some)], some).add_(middle.pair[0], alpha=gain) for some in weights]
