"""From what leaving out attention costs to a schedule of densities: blocks go where the picture misses them most.

Legend: a cell is one head of one layer in one range of noise levels. Work is counted in dense calls of one head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..densities import LETTERS, Densities, density_of
from .attention_costs import DENSITIES, Look, Variant
from .brick_costs import bins_of, edges_of

SEARCH = 0.5
"""Work of a search beside the dense call that it comes with."""

SPARED = LETTERS[0] + LETTERS[2:13]
"""What a cell may keep: everything, or from 63 % down to 6 %. Above that the kernels gain nothing over dense ones."""

TRIED = "f"
"""What cells keep where a range of noise levels is tried alone: a third."""

LEAST = 1e-12
"""Share of a head's error that stands for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTable:
    """What was measured of a pipeline's attention."""

    levels: tuple[float, ...]
    """Noise level before each step of a run."""
    looks: tuple[Look, ...]
    """One of every range of noise levels, the noisiest first."""
    lost: tuple[float, ...]
    """Squared error of the picture for one of the denoiser's output in all steps of a range, by range."""

    @property
    def bins(self) -> list[tuple[int, int]]:
        """First and last step of every range."""
        return bins_of(len(self.levels), len(self.looks))

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads of each."""
        return len(self.looks[0].density), len(self.looks[0].density[0])

    def cost(self, at: int, layer: int, head: int, density: float) -> float:
        """Squared error of the denoiser's output where one head keeps so much, at one step of a range.

        That of the layer was measured at one density; it goes by the squared error of its heads' own outputs.
        """
        if density >= 1.0:
            return 0.0
        look = self.looks[at]
        whole = look.errors[Variant(layers=(layer,))] ** 2
        kept = sum(look.kept[layer]) or 1.0
        return whole * at_density(look.own[layer][head], density) / kept


def at_density(own: Sequence[float], density: float) -> float:
    """A head's own squared error at a density between and beyond `DENSITIES`, on straight lines of their logarithms;
    above the largest falling to nothing where everything is kept."""
    largest = max(own)
    if largest <= 0.0:
        return 0.0
    known = [math.log(max(value, LEAST * largest)) for value in own]
    places = [math.log(value) for value in DENSITIES]
    at = math.log(density)
    i = min(len(places) - 2, max(0, sum(place > at for place in places) - 1))
    slope = (known[i + 1] - known[i]) / (places[i + 1] - places[i])
    error = math.exp(known[i] + slope * (at - places[i]))
    return error * (1.0 - density) / (1.0 - DENSITIES[0]) if density > DENSITIES[0] else error


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the table is read: one step at a time, it knows nothing of what errors do to each other."""

    dense: float = 0.1
    """Share of the steps that run dense before anything is left out; the last of them searches."""
    apart: float = 1.0
    """How much cells differ: 1 as they were measured, 0 not at all."""


def dense_steps(steps: int, share: float) -> int:
    """How many steps run dense, that of the search included, as the engine counts them."""
    return max(1, round(share * steps))


def plan(table: AttentionTable, saves: float, reading: Reading) -> tuple[Densities, ...] | None:
    """The densities that save the share `saves` of all attention at the least error in sum; None where so many dense
    steps leave no way to save it.

    Every cell has a curve of error over work; on its convex hull, taking the cheapest step first is the optimum.
    """
    steps, (layers, heads) = len(table.levels), table.shape
    first = dense_steps(steps, reading.dense)
    wanted = saves * steps + SEARCH
    counts = [max(0, last - max(begin, first) + 1) for begin, last in table.bins]
    if wanted > sum(counts) * (1.0 - density_of(SPARED[-1])):
        return None
    moves: list[tuple[float, int, int, int, str, float]] = []
    for at, count in enumerate(counts):
        if not count:
            continue
        factor = picture(table, at, count)
        for layer in range(layers):
            for head in range(heads):
                curve = [
                    (
                        count * density_of(letter) / (layers * heads),
                        factor * table.cost(at, layer, head, density_of(letter)) ** reading.apart,
                        letter,
                    )
                    for letter in SPARED
                ]
                moves += [(slope, at, layer, head, letter, less) for slope, letter, less in hull(curve)]
    letters = [[[LETTERS[0]] * heads for _ in range(layers)] for _ in table.bins]
    saved = 0.0
    for _, at, layer, head, letter, less in sorted(moves):
        if saved >= wanted:
            break
        letters[at][layer][head] = letter
        saved += less
    return tuple(
        Densities(low=low, high=high, layers=tuple("".join(layer) for layer in letters[at]))
        for at, count in enumerate(counts)
        if count
        for low, high in [edges_of(table.levels, table.bins[at])]
    )


def picture(table: AttentionTable, at: int, count: int) -> float:
    """Squared error of the picture for one of the denoiser's output in `count` steps of a range: the blocks left out
    are the same in all of them, so that the errors point the same way."""
    first, last = table.bins[at]
    return table.lost[at] * (count / (last - first + 1)) ** 2


def hull(curve: Sequence[tuple[float, float, str]]) -> list[tuple[float, str, float]]:
    """The steps down a curve of (work, error, letter), the dense end first, on its convex hull: what the error rises by
    a unit of work, the letter that is reached, the work that it saves. The rises grow."""
    found: list[tuple[float, str, float]] = []
    at = 0
    while at < len(curve) - 1:
        work, error, _ = curve[at]
        rises = [(after - error) / (work - less) for less, after, _ in curve[at + 1 :]]
        best = min(range(len(rises)), key=lambda i: (rises[i], -i))
        less, _, letter = curve[at + 1 + best]
        found.append((max(rises[best], 0.0), letter, work - less))
        at += 1 + best
    return found


def one_range(table: AttentionTable, at: int) -> tuple[tuple[Densities, ...], float, int]:
    """A schedule that leaves the same out of all cells of one range and nothing elsewhere, to see what that costs: its
    densities, the share of the steps before it, how many steps it makes sparse."""
    first, last = table.bins[at]
    low, high = edges_of(table.levels, (first, last))
    layers, heads = table.shape
    share = max(first, 1) / len(table.levels)
    # The first step of the range searches, and is dense itself.
    return (Densities(low=low, high=high, layers=(TRIED * heads,) * layers),), share, last - first


def whole_cost(table: AttentionTable, at: int) -> float:
    """Squared error of the denoiser's output at one step of a range under what `one_range` leaves out."""
    layers, heads = table.shape
    cells = ((layer, head) for layer in range(layers) for head in range(heads))
    return sum(table.cost(at, layer, head, density_of(TRIED)) for layer, head in cells)
