"""How far the clean picture follows the latents that a solver holds, where they are not those it was predicted from.

In theory as a Wiener filter has it for a Gaussian of unit variance (`Prediction.gain`). What curves the path of the
latents and what curves the outputs along it differ by schedule, though, so that theory alone goes the wrong way on
Karras and exponential levels. So it is measured how far a picture would have had to follow for a forecast of a computed
step to meet its truth, and the variance of the data for which the filter has that gain carries it over to other noise
levels: the gain itself, carried over as it is, lags behind where the levels fall fast.

Shapes: gains are numbers, or (R, 1, ...), one for each row of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...kernels.forecast import lagrange_weights
from ..prediction import Prediction
from .entries import Entry, misses, row_sums

LINE = 2
"""Steps that a straight line is drawn through: what departs from it is what the latents' curve did to the output."""

LEAST_MOVE = 0.5
"""Share of what theory has that a clean picture follows corrected latents by, at least."""

Gain = torch.Tensor | float


def _missed(prediction: Prediction, done: Sequence[Entry], nodes: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """`misses` of the newest computed step, forecast from the `nodes` before; None where there are too few."""
    levels = [entry.u for entry in done[: nodes + 1]]
    if len(set(levels)) <= nodes:
        return None
    return misses(prediction, done[0], done[1 : nodes + 1], lagrange_weights(levels[1:], levels[0]))


def _following(missing: torch.Tensor, away: torch.Tensor, least: float, largest: float) -> torch.Tensor:
    """The gain between two bounds that leaves least of `missing`."""
    return (row_sums(missing * away) / row_sums(away.square()).clamp_min(1e-30)).clamp(least, largest)


def forecast_gain(prediction: Prediction, u: float, done: Sequence[Entry], nodes: int) -> Gain:
    """How far a forecast at noise level `u` from `nodes` steps moves with the latents.

    Args:
        done: the computed steps, newest first; nodes + 2 are looked at. Theory's where there are too few.
    """
    now, before = (_missed(prediction, done[i:], nodes) for i in (0, 1))
    if now is None:
        return prediction.gain(u)
    # What was known a computed step ago is tried on the newest: where it did not help there, it is not used.
    missing, away = now
    newest, largest = done[0].u, prediction.largest_gain(done[0].u)
    tried: Gain = prediction.gain(newest)
    if before is not None:
        tried = prediction.carried(_following(*before, 0.0, prediction.largest_gain(done[1].u)), done[1].u, newest)
    helped = row_sums((missing - tried * away).square()) < row_sums((missing - largest * away).square())
    measured = prediction.carried(_following(*now, 0.0, largest), newest, u)
    return torch.where(helped, measured, prediction.largest_gain(u))


def ending_gain(prediction: Prediction, now: Entry, done: Sequence[Entry]) -> Gain:
    """How far the output of the step that ends a run moves with the latents: measured at that very step.

    Args:
        done: the computed steps before, newest first; LINE are looked at. Theory's where there are too few.
    """
    found = _missed(prediction, [now, *done], LINE)
    return prediction.gain(now.u) if found is None else _following(*found, 0.0, prediction.largest_gain(now.u))


def bounded_gain(prediction: Prediction, now: Entry, done: Sequence[Entry]) -> Gain:
    """`ending_gain` of a line by step through the two computed steps before, held between LEAST_MOVE of theory's and
    all of it."""
    largest = prediction.gain(now.u)
    if len(done) < LINE:
        return largest
    weights = lagrange_weights([float(entry.step) for entry in done], float(now.step))
    return _following(*misses(prediction, now, done, weights), LEAST_MOVE * largest, largest)
