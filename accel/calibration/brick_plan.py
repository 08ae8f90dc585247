"""From what bricks cost to a schedule: leave out what is cheapest until enough is saved.

Legend: a cell is one brick in one range of noise levels; its share is how many of the steps there leave it out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..bricks.brick import Brick
from ..bricks.engine import ROUNDING
from .brick_costs import AGES, CostTable

RUNGS = (0.0, 0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.75, 0.8)
"""Shares that a cell is raised through; 0.8 runs a brick in every fifth step."""

MOST = RUNGS[-1]
"""No schedule leaves out more."""

HALVINGS = 16
"""Of the interval in which the share that saves enough is looked for."""

Shares = tuple[tuple[float, ...], ...]
"""[bin][brick]."""

Raise = tuple[float, int, int, float, float]
"""What raising a share costs a block that it saves; bin and brick of the cell; the share before and after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tilt:
    """How the measured costs are read: one call at a time, they know nothing of what errors do to each other."""

    apart: float = 1.0
    """How much bricks differ: 1 as they were measured one by one, 0 not at all, which leaves all of them out in
    the same steps."""
    bins: tuple[float, ...] = ()
    """Logarithms of factors on the cost of each range of noise levels; empty for none."""
    bricks: tuple[float, ...] = ()
    """The same of each brick."""


def plan(table: CostTable, saves: float, tilt: Tilt) -> Shares:
    """The shares of all cells that save the share `saves` of all blocks at the least cost in sum.

    Raising a cell's share costs the more the higher it is, so that taking the cheapest raise first is the optimum.
    """
    return taken(table, saves, cheapest_first(table, tilt))


def cheapest_first(table: CostTable, tilt: Tilt) -> list[Raise]:
    """Every raise of a cell's share. It is the same whatever is to be saved, and takes longer than all that follows."""
    raises: list[Raise] = []
    for at in range(len(table.bins)):
        for g in range(len(table.groups)):
            dearest = 0.0
            costs = [cell_cost(table, at, g, share, tilt) for share in RUNGS]
            for low, high, before, after in zip(RUNGS, RUNGS[1:], costs, costs[1:], strict=False):
                dearest = max(dearest, (after - before) / ((high - low) * table.sizes[g]))
                raises.append((dearest, at, g, low, high))
    return sorted(raises)


def taken(table: CostTable, saves: float, raises: Sequence[Raise]) -> Shares:
    """The shares after as many of `raises`, in this order, as save the share `saves` of all blocks."""
    sizes = table.sizes
    shares = [[0.0] * len(table.groups) for _ in table.bins]
    left = saves * len(table.levels) * sum(sizes)
    for _, at, g, low, high in raises:
        first, last = table.bins[at]
        worth = (last - first + 1) * sizes[g]
        # The last raise is taken in part.
        raised = min(high, low + left / worth)
        shares[at][g] = raised
        left -= (raised - low) * worth
        if left <= 1e-9:
            break
    return tuple(map(tuple, shares))


def cell_cost(table: CostTable, at: int, g: int, share: float, tilt: Tilt) -> float:
    """Cost of a step in cell (at, g) on average, where `share` of the steps leave the brick out."""
    single = [costs[0] for costs in table.single[at]]
    mean = sum(single) / len(single) or 1.0
    # Together, bricks cost `every`; what each has of that goes by its size and by what it costs alone.
    part = table.sizes[g] / sum(table.sizes) * (single[g] / mean / table.sizes[g] * mean_size(table)) ** tilt.apart
    factor = math.exp((tilt.bins[at] if tilt.bins else 0.0) + (tilt.bricks[g] if tilt.bricks else 0.0))
    run = share / (1.0 - share)
    return part * factor * (1.0 - share) * cumulated(table.every[at], run)


def mean_size(table: CostTable) -> float:
    return sum(table.sizes) / len(table.sizes)


def cumulated(costs: Sequence[float], run: float) -> float:
    """Cost of a run of `run` steps without a brick, the later ones costing more; in part for a part of a step."""
    whole = int(run)
    done = sum(at_age(costs, age) for age in range(1, whole + 1))
    return done + (run - whole) * at_age(costs, whole + 1)


def at_age(costs: Sequence[float], age: float) -> float:
    """Cost at an age between and beyond those measured, on straight lines."""
    place = max(1, next((i for i, known in enumerate(AGES) if known >= age), len(AGES) - 1))
    (a, b), (low, high) = AGES[place - 1 : place + 1], costs[place - 1 : place + 1]
    return low + (high - low) * (age - a) / (b - a)


def uniform(table: CostTable, saves: float, tilt: Tilt | None = None) -> Shares:
    """Every brick left out in the same share of the steps everywhere, less where `tilt` makes it dearer."""
    if tilt is None:
        return tuple(tuple(saves for _ in table.groups) for _ in table.bins)
    return tuple(tuple(min(MOST, saves * math.exp(-one - other)) for other in tilt.bricks) for one in tilt.bins)


def single_steps(table: CostTable) -> CostTable:
    """The table with every step in a range of its own; the costs stay behind."""
    return replace(table, bins=tuple((step, step) for step in range(len(table.levels))))


def drawn(table: CostTable, saves: float, seed: int) -> Shares:
    """Bricks and steps drawn at random until as much is saved, for a table of `single_steps`."""
    cells = [(step, g) for step in range(1, len(table.levels)) for g in range(len(table.groups))]
    random.Random(seed).shuffle(cells)
    shares = [[0.0] * len(table.groups) for _ in table.levels]
    left = saves * len(table.levels) * sum(table.sizes)
    for step, g in cells:
        # The last one is taken where that comes nearer.
        if left < table.sizes[g] / 2:
            break
        shares[step][g] = 1.0
        left -= table.sizes[g]
    return tuple(map(tuple, shares))


def bricks_of(table: CostTable, shares: Shares) -> tuple[Brick, ...]:
    """The schedule that has these shares, neighbouring cells of one share written as one brick."""
    boxes: list[list[float]] = []
    for g, (first, last) in enumerate(table.groups):
        for at in range(len(table.bins)):
            share = float(f"{shares[at][g]:.4g}")
            low, high = table.edges(at)
            if share <= 0:
                continue
            if boxes and boxes[-1][0] == first and boxes[-1][2] == high and boxes[-1][4] == share:
                boxes[-1][2] = low
            else:
                boxes.append([first, last, low, high, share])
    joined: list[list[float]] = []
    for box in sorted(boxes, key=lambda b: (b[2], b[3], b[4], b[0])):
        before = joined[-1] if joined else None
        if before is not None and before[1] + 1 == box[0] and before[2:] == box[2:]:
            before[1] = box[1]
        else:
            joined.append(list(box))
    joined.sort(key=lambda b: (-b[3], b[0]))
    return tuple(
        Brick(first=int(first), last=int(last), low=low, high=high, share=share)
        for first, last, low, high, share in joined
    )


def saved(table: CostTable, shares: Shares) -> float:
    """Share of all blocks that is left out of a run by these shares, as `BrickEngine` counts them off step by step."""
    out = 0
    for g, size in enumerate(table.sizes):
        owed = 0.0
        for at, (first, last) in enumerate(table.bins):
            for step in range(first, last + 1):
                owed += shares[at][g]
                if owed >= 1.0 - ROUNDING:
                    out += size if step else 0
                    owed = owed - 1.0 if step else 0.0
    return out / (len(table.levels) * sum(table.sizes))


def that_saves(table: CostTable, saves: float, make: Callable[[float], Shares]) -> Shares:
    """The shares among `make(asked)` that save most nearly `saves` once they are counted off in whole steps.

    Of those equally near the least asked is taken.
    """
    best, nearest = make(saves), math.inf
    low, high = 0.5 * saves, min(MOST, 1.5 * saves)
    for _ in range(HALVINGS):
        asked = (low + high) / 2
        shares = make(asked)
        got = saved(table, shares)
        if abs(got - saves) < nearest:
            best, nearest = shares, abs(got - saves)
        low, high = (asked, high) if got < saves else (low, asked)
    return best
