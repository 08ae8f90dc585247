"""MeanCache: whole steps are left out, and the velocity of the step before is corrected towards the mean over the next.

Source: Gao et al., "MeanCache: From Instantaneous to Average Velocity for Accelerating Flow Matching Inference", ICLR
2026, arXiv:2601.19961. By the identity of MeanFlow, the velocity at the start of an interval less its mean over it,
divided by its length, is the slope of the mean: it is read off the last one to six steps. Which steps are computed, and
over how many steps each slope is read, comes from one plain run: the path over the steps that keeps the peaks of the
error of the mean velocity low. Differs from it: the power that suppresses peaks is not in what was at hand, and is 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ...errors import UnsupportedModelError
from .intercept import Call, calls_replaced
from .peer import PEERS, Peer

LONGEST = 6
"""Steps that a slope is read over, at most; 1 reuses the velocity as it is."""
PEAK_POWER = 4


@dataclass(slots=True)
class Trajectory:
    """The steps of a run so far: states before each, noise levels before each, guided velocities at each."""

    states: list[torch.Tensor] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    velocities: list[torch.Tensor] = field(default_factory=list)

    def slope(self, at: int, over: int) -> torch.Tensor:
        """Of the mean velocity, from the `over` steps that end in state `at`."""
        first = at - over
        length = self.levels[at] - self.levels[first]
        mean = (self.states[at] - self.states[first]) / length
        return (self.velocities[first] - mean) / length


def error_of_mean(plain: Trajectory, start: int, end: int, over: int) -> float:
    """Mean absolute error of the velocity forecast over the steps `start` to `end`, of which the first is computed."""
    length = plain.levels[end] - plain.levels[start]
    forecast = plain.velocities[start]
    if over > 1:
        forecast = forecast - plain.slope(start + 1, over) * length
    return float((forecast - (plain.states[end] - plain.states[start]) / length).abs().mean())


Edges = dict[tuple[int, int], tuple[float, int]]
"""By a computed step and the next: the powered error of what is forecast between, and over how many steps."""


def edges_of(plain: Trajectory) -> Edges:
    """Every two steps that may be computed one after the other.

    Args:
        plain: of every step, with the final state and level as one more.
    """
    steps = len(plain.velocities)
    edges: Edges = {}
    for start in range(steps):
        for end in range(start + 1, steps + 1):
            choices = range(1, min(LONGEST, start + 1) + 1) if end > start + 1 else [1]
            error, over = min((error_of_mean(plain, start, end, over), over) for over in choices)
            edges[start, end] = (error**PEAK_POWER if end > start + 1 else 0.0, over)
    return edges


def computed_steps(edges: Edges, steps: int, budget: int) -> dict[int, int]:
    """The `budget` of `steps` of least summed powered errors; by step, over how many a slope is read after it."""
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}
    for _ in range(budget - 1):
        best = {
            end: min((cost + edges[start, end][0], [*path, end]) for start, (cost, path) in best.items() if start < end)
            for end in range(min(best) + 1, steps)
        }
    path = min((cost + edges[last, steps][0], path) for last, (cost, path) in best.items())[1]
    return {start: edges[start, end][1] for start, end in zip(path, [*path[1:], steps], strict=True)}


class LeavingOut:
    """Calls of the denoiser at steps that are not computed give what the last computed one gave: nobody looks at it."""

    def __init__(self, computed: dict[int, int]) -> None:
        self.computed = computed
        self.made: dict[int, torch.Tensor] = {}

    def computes(self, call: Call) -> bool:
        return call.step in self.computed

    def keep(self, call: Call, made: torch.Tensor) -> None:
        self.made[call.branch] = made

    def replaces(self, call: Call) -> torch.Tensor:
        return self.made[call.branch]


@contextmanager
def velocities_replaced(pipe: Any, computed: dict[int, int] | None) -> Iterator[Trajectory]:
    """The scheduler of `pipe` given forecast velocities at steps that are not in `computed`; None only watches.

    Raises: UnsupportedModelError for a scheduler that does not go along velocities.
    """
    scheduler, seen = pipe.scheduler, Trajectory()
    flow = (
        "FlowMatch" in type(scheduler).__name__ or getattr(scheduler.config, "prediction_type", "") == "flow_prediction"
    )
    if not flow:
        raise UnsupportedModelError(f"MeanCache needs a flow-matching scheduler; {type(scheduler).__name__} is none")
    step, had = scheduler.step, vars(scheduler).get("step")
    last = 0

    def replaced(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal last
        now = len(seen.velocities)
        seen.states.append(sample.float())
        seen.levels.append(float(scheduler.sigmas[now]))
        velocity = model_output
        if computed is None or now in computed:
            last = now
        else:
            velocity, over = seen.velocities[-1], computed[last]
            if over > 1:
                velocity = velocity - seen.slope(now, min(over, now)) * float(
                    scheduler.sigmas[now + 1] - seen.levels[now]
                )
            velocity = velocity.to(model_output.dtype)
        seen.velocities.append(velocity.float())
        given = step(velocity, timestep, sample, *args, **kwargs)
        if computed is None and now + 2 == len(scheduler.sigmas):
            after = given[0] if isinstance(given, tuple) else given.prev_sample
            seen.states.append(after.float())
            seen.levels.append(float(scheduler.sigmas[-1]))
        return given

    scheduler.step = replaced
    try:
        yield seen
    finally:
        del scheduler.step
        if had is not None:
            scheduler.step = had


def calibrated(pipe: Any, steps: int, run: Any) -> dict[str, Any]:
    """What each budget takes its schedule from, read off one plain run."""
    with velocities_replaced(pipe, None) as plain:
        run()
    return {"edges": edges_of(plain), "steps": len(plain.velocities)}


@contextmanager
def apply(pipe: Any, *, speedup: float, edges: Edges, steps: int) -> Iterator[Any]:
    """`pipe` with one in `speedup` steps computed, the same for every sample."""
    computed = computed_steps(edges, steps, max(1, round(steps / speedup)))
    with velocities_replaced(pipe, computed), calls_replaced(pipe, LeavingOut(computed)):
        yield pipe


PEERS.add(
    "meancache",
    Peer(
        label="MeanCache",
        settings=tuple({"speedup": s} for s in (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)),
        apply=apply,
        prepare=calibrated,
    ),
)
