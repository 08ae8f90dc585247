"""What leaving out each brick costs, by noise level: measured beside one plain run, a denoiser call at a time.

At some steps of every range of noise levels the denoiser is called again with one brick, or all of them, replaced by
the change that they made some steps before. How far the output moves, weighed by how much an error at that noise level
counts in the picture, is the cost. The run itself goes on as if nobody had looked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from ...errors import ConfigError, UnsupportedModelError
from ..bricks.engine import add_changes, copied, with_changes
from ..clock import Clock
from ..denoiser import Denoiser, Interception, denoisers_of, echo
from ..families import Family, find_family
from ..inputs import timestep_of
from ..moment import Moment

AGES = (1, 3)
"""Steps ago at which a brick last ran, for which the cost is measured; between them it is interpolated."""

Group = tuple[int, int]
"""First and last block of a brick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """What was measured of a pipeline at its steps."""

    groups: tuple[Group, ...]
    levels: tuple[float, ...]
    """Noise level before each step of a run."""
    bins: tuple[tuple[int, int], ...]
    """First and last step of every range of noise levels, the noisiest first."""
    single: list[list[list[float]]]
    """[bin][brick][age]: what leaving out one brick at one step costs."""
    every: list[list[float]]
    """[bin][age]: the same of all bricks at once."""

    @property
    def sizes(self) -> list[int]:
        """Blocks in each brick."""
        return [last - first + 1 for first, last in self.groups]

    def edges(self, at: int) -> tuple[float, float]:
        """The noise levels (low, high) that hold the steps of a bin and no others."""
        return edges_of(self.levels, self.bins[at])


def edges_of(levels: Sequence[float], steps: tuple[int, int]) -> tuple[float, float]:
    """The noise levels (low, high) that hold the steps from the first to the last and no others, half way to their
    neighbours'.

    Args:
        levels: noise level before each step of a run.
    """
    first, last = steps
    high = 1.0 if first == 0 else (levels[first - 1] + levels[first]) / 2
    low = 0.0 if last == len(levels) - 1 else (levels[last] + levels[last + 1]) / 2
    return low, high


def group_blocks(family: Family, transformer: Any, bricks: int) -> tuple[Group, ...]:
    """The blocks of a transformer in about `bricks` groups of like size, none across two stacks."""
    stacks = [stack for stack, _ in family.blocks(transformer)]
    begins = [0, *(i for i in range(1, len(stacks)) if stacks[i] is not stacks[i - 1]), len(stacks)]
    groups = []
    for begin, end in pairwise(begins):
        parts = min(end - begin, max(1, round(bricks * (end - begin) / len(stacks))))
        edges = [begin + round(i * (end - begin) / parts) for i in range(parts + 1)]
        groups += [(first, after - 1) for first, after in pairwise(edges)]
    return tuple(groups)


def measure(pipe: Any, run: Callable[[], object], *, bricks: int, bins: int, looks: int) -> CostTable:
    """Run the pipeline once and measure what its bricks cost.

    Args:
        run: calls the pipeline on the calibration prompts, all steps.
        bricks: about how many groups its blocks are put in.
        bins: ranges of noise levels, of equally many steps.
        looks: steps of each range at which is measured.

    Raises: UnsupportedModelError where no scheduler tells the noise levels.
    """
    found = denoisers_of(pipe)
    family = find_family(found[0][1])
    probe = Probe(group_blocks(family, found[0][1], bricks), bins, looks)
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is None or not hasattr(scheduler, "step"):
        raise UnsupportedModelError(
            "bricks are calibrated on a pipeline with a scheduler, which tells the noise levels"
        )
    denoisers: list[Denoiser] = []
    try:
        for name, module in found:
            denoisers.append(Denoiser(name, module, find_family(module), probe))
        probe.clock.attach(scheduler)
        with torch.no_grad():
            run()
        return probe.table()
    finally:
        probe.clock.detach()
        for denoiser in denoisers:
            denoiser.remove()


class Probe:
    """Drives the denoisers of one plain run, and looks aside (see denoiser.Denoiser for what drives one)."""

    def __init__(self, groups: tuple[Group, ...], bins: int, looks: int) -> None:
        self.groups, self.bins, self.looks = groups, bins, looks
        self.clock = Clock(self.reset)
        self._where = {i: g for g, (first, last) in enumerate(groups) for i in range(first, last + 1)}
        self._past: dict[tuple[str, str], list[list[dict[str, torch.Tensor]]]] = {}
        self._now: list[dict[str, torch.Tensor]] = []
        self._entry: list[Any] = []
        self._instead: dict[int, dict[str, torch.Tensor]] | None = None
        self._levels: list[float] = []
        self._sums: dict[tuple[int, int, int], list[float]] = {}

    def reset(self) -> None:
        """Forget the changes of the run."""
        self._past.clear()

    def call(self, denoiser: Denoiser, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One call of the transformer, and what is asked aside."""
        context = denoiser.context.name if denoiser.context is not None else None
        moment = self.clock.tick(float(timestep_of(site.named(args, kwargs), denoiser.family)), context)
        if self.clock.levels is None:
            raise UnsupportedModelError("the pipeline's scheduler does not tell the noise levels of its steps")
        self._levels = [float(level) for level in self.clock.levels[:-1]]
        self._now, self._entry, self._instead = [{} for _ in self.groups], [None] * len(self.groups), None
        output = site.proceed(*args, **kwargs)
        past = self._past.setdefault((denoiser.name, moment.branch), [])
        past.insert(0, self._now)
        del past[max(AGES) + 1 :]
        at = self._bin_looked_at(self.clock.place)
        if at is not None:
            self._look(at, moment, past, output, lambda: site.proceed(*args, **kwargs))
        return output

    def _look(
        self, at: int, moment: Moment, past: list[list[dict[str, torch.Tensor]]], output: Any, again: Callable[[], Any]
    ) -> None:
        """Call the denoiser again without each brick, and without all of them."""
        plain = tensor_of(output).float()
        everything = range(len(self.groups))
        for a, age in enumerate(AGES):
            if age >= len(past):
                continue
            for group, out in [*((g, [g]) for g in everything), (len(self.groups), list(everything))]:
                self._instead = {g: past[age][g] for g in out}
                moved = (tensor_of(again()).float() - plain).flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1)
                self._sums.setdefault((at, group, a), []).append(float(moved.mean()) * moment.weight)
        self._instead = None

    def _bin_looked_at(self, step: int) -> int | None:
        """The bin of which this step is one that is measured at."""
        for at, (first, last) in enumerate(bins_of(len(self._levels), self.bins)):
            length = last - first + 1
            looks = min(self.looks, length)
            # From the middle outwards, at equal distances.
            if step in {first + int((2 * i + 1) * length / (2 * looks)) for i in range(looks)}:
                return at
        return None

    def block(
        self, denoiser: Denoiser, index: int, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """One call of a block: its change is kept, or stands in for it."""
        group, stack = self._where[index], denoiser.stacks[index]
        named = site.named(args, kwargs)
        if self._instead is None:
            before = {name: copied(named.get(name)) for name in stack.returns}
            if index == self.groups[group][0]:
                self._entry[group] = tuple(before.values()) if len(before) > 1 else before[stack.returns[0]]
            result = site.proceed(*args, **kwargs)
            add_changes(self._now[group], before, result, stack)
            return result
        first = min(self._instead)
        if group in self._instead and index == self.groups[group][0]:
            # Up to the first brick that is left out everything is as it was, so that nothing before it has to run.
            argument = self._entry[group] if group == first else echo(named, stack)
            return with_changes(argument, stack, self._instead[group])
        if group in self._instead or group < first:
            return echo(named, stack)
        return site.proceed(*args, **kwargs)

    def table(self) -> CostTable:
        """What was measured. Raises: ConfigError where the run was too short."""
        steps = len(self._levels)
        bins = bins_of(steps, self.bins)
        missing = [at for at in range(len(bins)) if (at, 0, 0) not in self._sums]
        if not steps or missing == list(range(len(bins))):
            raise ConfigError(f"nothing could be measured in a run of {steps} steps; calibrate with 4 steps or more")
        lists = range(len(self.groups) + 1)
        # The first steps have no past to put in their place: what is measured next to them stands for them.
        source = {
            at: min((other for other in range(len(bins)) if other not in missing), key=lambda o: abs(o - at))
            for at in range(len(bins))
        }
        costs = [
            [filled([self._sums.get((source[at], g, a)) for a in range(len(AGES))]) for g in lists]
            for at in range(len(bins))
        ]
        return CostTable(
            groups=self.groups,
            levels=tuple(self._levels),
            bins=tuple(bins),
            single=[row[:-1] for row in costs],
            every=[row[-1] for row in costs],
        )


def filled(measured: Sequence[list[float] | None]) -> list[float]:
    """The mean at each age, never less than at a younger one; in proportion to its steps where none was measured."""
    means: list[float] = []
    for a, values in enumerate(measured):
        mean = sum(values) / len(values) if values else means[-1] * AGES[a] / AGES[a - 1]
        means.append(max(mean, means[-1]) if means else mean)
    return means


def bins_of(steps: int, bins: int) -> list[tuple[int, int]]:
    """First and last step of ranges of equally many steps."""
    count = min(bins, steps)
    edges = [round(i * steps / count) for i in range(count + 1)] if count else []
    return [(first, after - 1) for first, after in pairwise(edges)]


def tensor_of(output: Any) -> torch.Tensor:
    """The denoiser's answer in what it returns."""
    first = output[0] if not isinstance(output, torch.Tensor) else output
    return torch.stack(list(first)) if isinstance(first, (list, tuple)) else first
