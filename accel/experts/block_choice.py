"""Which blocks each noise level does without, and where what stands in for them begins: both measured on calls."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError, InputError
from ..denoiser import Rows
from ..families import Stack, find_family
from .noise_levels import timesteps_of
from .pruned import left_out
from .regression import Regression
from .scheduled import ScheduledBlock, find_scheduled, normalised, run_ends
from .sites import find_sites

BEYOND = 1 / 6
"""Blocks of a shared list beyond the mean number that is left out, as a share of it; neighbouring levels differ in at
most twice as many. The more levels differ in, the more the other blocks have to learn with and without: with lists and
steps twice as long the error after training was higher (docs/dense2moe.md)."""


@torch.no_grad()
def choose_blocks(
    transformer: nn.Module,
    calls: Sequence[Mapping[str, Any]],
    drop: int,
    borders: Sequence[float] = (),
    places: Sequence[int] | None = None,
    *,
    stand_ins: bool = False,
) -> tuple[tuple[int, ...], ...]:
    """Blocks that every noise level does without, for `Conversion.left_out`: as many as pay for `drop` on average.

    The mean call costs no more FLOPs than without `drop` blocks at all levels. Levels share one list, a little longer
    than `drop`: blocks without which the output moves least, over all levels, one after the other. Each level leaves
    out the first so many of it in execution order, more where the output moves less, so that blocks before the place
    where levels part see the same at all of them. With `stand_ins`, which are counted, every level has a list of its
    own instead: nearer to the dense model untrained, and further off once trained.

    Args:
        transformer: the dense one.
        calls: keyword arguments of it at several noise levels; levels count alike.
        drop: blocks of mean cost.
        borders: timesteps between the levels, from `level_borders`; none: one level, a static choice.
        places: of the blocks to choose among; None: all but the first and the last.
        stand_ins: as in `Conversion`.

    Returns: for every level places of blocks, counted over all stacks from 0, ascending.

    Raises: InputError where no call is at some level, or there is none; ConfigError for more blocks than there are.
    """
    if not calls:
        raise InputError("which blocks a noise level can do without is asked on calls; give some")
    trial = _Trial(transformer, calls, borders, places, stand_ins)
    chosen = _own_lists(trial, drop) if stand_ins else _one_list(trial, drop)
    return tuple(tuple(sorted(gone)) for gone in chosen)


class _Trial:
    """How far the output moves without blocks, and what that saves."""

    def __init__(
        self,
        transformer: nn.Module,
        calls: Sequence[Mapping[str, Any]],
        borders: Sequence[float],
        places: Sequence[int] | None,
        stand_ins: bool,
    ) -> None:
        family = find_family(transformer)
        self.transformer, self.blocks = transformer, family.blocks(transformer)
        self.places = list(places or range(1, len(self.blocks) - 1))
        self.levels = range(len(borders) + 1)
        whole = _flops(transformer, calls[0])
        self.costs = {place: whole - _flops(transformer, calls[0], self.blocks[place]) for place in self.places}
        self.stand_in = _stand_in_flops(transformer, calls[0], *self.blocks[self.places[0]]) if stand_ins else 0
        self._asked = [_calls_at(calls, family.time, borders, level) for level in self.levels]
        self._answers = [[transformer(**call)[0] for call, _ in some] for some in self._asked]

    def moved(self, level: int, gone: Sequence[int]) -> float:
        """Mean squared change of the output at a level without the blocks at `gone`."""
        far: list[Tensor] = []
        with ExitStack() as stack:
            for place in gone:
                stack.enter_context(left_out(*self.blocks[place]))
            for (call, rows), answer in zip(self._asked[level], self._answers[level], strict=True):
                far.append((self.transformer(**call)[0] - answer)[rows].float().square().flatten(1).mean(1))
        return float(torch.cat(far).mean())

    def saved(self, gone: Sequence[int]) -> int:
        """FLOPs of one call of those that blocks were weighed on."""
        ends = run_ends(sorted(gone), [stack for stack, _ in self.blocks])
        return sum(self.costs[place] for place in gone) - self.stand_in * len(ends)

    def worth(self, drop: int) -> int:
        """FLOPs of so many blocks of mean cost. Raises: ConfigError for more than there are."""
        if drop > len(self.places):
            raise ConfigError(f"{drop} blocks cannot be left out: there are {len(self.places)} to choose among")
        return drop * sum(self.costs.values()) // len(self.costs)

    def next_of(self, gone: Sequence[int], levels: Sequence[int]) -> tuple[float, int, float]:
        """The block beside those that are gone without which the output moves least at `levels` for what it saves: how
        far for what, its place, and how far in all."""
        before = sum(self.moved(level, gone) for level in levels)
        left = [place for place in self.places if place not in gone]
        moved = {place: sum(self.moved(level, [*gone, place]) for level in levels) for place in left}
        options = [((far - before) / self.costs[place], place, far) for place, far in moved.items()]
        return min(options, default=(torch.inf, -1, 0.0))


def _one_list(trial: _Trial, drop: int) -> list[list[int]]:
    """The first so many for every level, of one list, such that the output moves least over all levels."""
    needed, gone = trial.worth(drop) * len(trial.levels), list[int]()
    beyond = max(1, round(BEYOND * drop)) if len(trial.levels) > 1 else 0
    longest = trial.worth(min(drop + beyond, len(trial.places)))
    while trial.saved(gone) < longest:
        gone.append(trial.next_of(gone, trial.levels)[1])
    gone.sort()
    counts = range(len(gone) + 1)
    saved = [trial.saved(gone[:count]) for count in counts]
    moved = [[trial.moved(level, gone[:count]) for count in counts] for level in trial.levels]
    # The best of all counts that save so much (or enough), level by level; by how many the last level leaves out.
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {
        (count, min(needed, saved[count])): (moved[0][count], (count,)) for count in counts
    }
    for level in trial.levels[1:]:
        longer = dict[tuple[int, int], Any]()
        for ((last, so_far), (far, before)), count in itertools.product(best.items(), counts):
            if abs(count - last) <= 2 * beyond:
                key = count, min(needed, so_far + saved[count])
                longer[key] = min(longer.get(key, (torch.inf,)), (far + moved[level][count], (*before, count)))
        best = longer
    _, chosen = min(found for (_, enough), found in best.items() if enough == needed)
    return [gone[:count] for count in chosen]


def _own_lists(trial: _Trial, drop: int) -> list[list[int]]:
    """Blocks of every level one after the other, each time of the level where the output moves least for it."""
    chosen: list[list[int]] = [[] for _ in trial.levels]
    budget = trial.worth(drop) * len(trial.levels)
    best = [trial.next_of([], [level]) for level in trial.levels]
    while sum(map(trial.saved, chosen)) < budget:
        level = min(trial.levels, key=lambda one: best[one][0])
        place = best[level][1]
        if place < 0:
            raise ConfigError(f"{drop} blocks cannot be left out: stand-ins of all {len(trial.places)} cost too much")
        chosen[level].append(place)
        best[level] = trial.next_of(chosen[level], [level])
    return chosen


@torch.no_grad()
def start_blocks(transformer: nn.Module, calls: Sequence[Mapping[str, Any]]) -> None:
    """Let what stands in for left-out blocks begin at the least squares fit of what the blocks would give.

    First blocks first, each fitted behind those before it, so that it makes up for what they lack, too. With every
    block on the model is the dense one still.

    Source: refitting the weights behind pruned units as in ThiNet (Luo et al. 2017, arXiv:1707.06342).

    Differs from the paper: of blocks, for each noise level, with a bias and a ridge.

    Args:
        transformer: with blocks left out by noise level and stand-ins for them, untrained, as `convert` gives it.
        calls: keyword arguments of it at several noise levels; a level that none is at stays as it is.

    Raises: ConfigError where nothing stands in for blocks, or stand-ins hold 8-bit codes.
    """
    scheduled = find_scheduled(transformer)
    if not any(_stand_ins(block) for block, _ in scheduled):
        raise ConfigError(f"nothing stands in for blocks of this {type(transformer).__name__} that could be fitted")
    for block, one in scheduled:
        if any(
            not isinstance(part, nn.Linear) for made in _stand_ins(block).values() for part in made.streams.values()
        ):
            raise ConfigError("what stands in for blocks is fitted before weights are held as 8-bit codes")
        sums: dict[tuple[str, str], Regression] = {}
        for call in calls:
            wanted, _ = _at(transformer, block, call, scheduled, dense=True)
            given, levels = _at(transformer, block, call, scheduled, dense=False)
            for level in sorted({str(level) for level in levels if level is not None} & _stand_ins(block).keys()):
                rows = [row for row, found in enumerate(levels) if str(found) == level]
                cut = Rows(rows, len(levels), given[one.stack.hidden].device)
                for name, linear in _stand_ins(block)[level].streams.items():
                    x, y = (cut.cut(value, one.stack, name) for value in (given.get(name), wanted.get(name)))
                    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape[-1] == linear.in_features:
                        fit = sums.setdefault((level, name), Regression(linear.in_features, linear.out_features))
                        fit.add(normalised(x), y - x)
        for (level, name), fit in sums.items():
            fit.solve(_stand_ins(block)[level].streams[name])


class _Reached(Exception):
    """The block that is asked about was reached; the rest of the call is not needed."""


def _at(
    transformer: nn.Module,
    block: nn.Module,
    call: Mapping[str, Any],
    scheduled: Sequence[tuple[nn.Module, ScheduledBlock]],
    *,
    dense: bool,
) -> tuple[dict[str, Any], list[int | None]]:
    """What a block returns in the dense model, or else what it is given by name behind blocks that were left out; and
    the samples' levels."""
    own = next(one for module, one in scheduled if module is block)
    found: dict[str, Any] = {}

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.update(zip(own.names, args, strict=False))
        found.update(kwargs)
        raise _Reached

    def behind(_: nn.Module, __: Any, result: Any) -> None:
        found.update(zip(own.stack.returns, result if isinstance(result, tuple) else (result,), strict=True))
        raise _Reached

    hook = block.register_forward_hook(behind) if dense else block.register_forward_pre_hook(before, with_kwargs=True)
    for _, one in scheduled:
        one.all = dense
    try:
        transformer(**call)
    except _Reached:
        pass
    finally:
        hook.remove()
        for _, one in scheduled:
            one.all = False
    return found, own.levels(len(found[own.stack.hidden]))


def _stand_ins(block: nn.Module) -> dict[str, Any]:
    return dict(cast(nn.ModuleDict, block.stand_ins).items())


def _calls_at(
    calls: Sequence[Mapping[str, Any]], time: str, borders: Sequence[float], level: int
) -> list[tuple[dict[str, Any], Tensor | slice]]:
    """The calls that have samples at a level, and which they are."""
    if not borders:
        return [({**call, "return_dict": False}, slice(None)) for call in calls]
    found = []
    for call in calls:
        times = timesteps_of(call.get(time))
        if times is None:
            raise InputError("the calls tell no timestep, and blocks are chosen by noise level")
        at = torch.bucketize(torch.tensor(times), torch.tensor(list(borders)), right=True) == level
        if bool(at.any()):
            rows = slice(None) if bool(at.all()) else at.nonzero().flatten()
            found.append(({**call, "return_dict": False}, rows))
    if not found:
        raise InputError(f"no call is at noise level {level + 1} of {len(borders) + 1}; give calls at all of them")
    return found


def _flops(transformer: nn.Module, call: Mapping[str, Any], without: tuple[Stack, nn.Module] | None = None) -> int:
    from ..estimate.recording import recording_calls

    with recording_calls([transformer]) as counted, ExitStack() as stack:
        if without is not None:
            stack.enter_context(left_out(*without))
        transformer(**{**call, "return_dict": False})
    return counted[0].flops


def _stand_in_flops(transformer: nn.Module, call: Mapping[str, Any], stack: Stack, block: nn.Module) -> int:
    """FLOPs of what stands in for the block."""
    width, names, seen = find_sites(transformer)[0].read().width, list(inspect.signature(block.forward).parameters), []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        streams = [named.get(name) for name in stack.returns]
        seen.append(sum(2 * x.numel() * width for x in streams if isinstance(x, Tensor) and x.shape[-1] == width))

    hook = block.register_forward_pre_hook(note, with_kwargs=True)
    try:
        transformer(**{**call, "return_dict": False})
    finally:
        hook.remove()
    return seen[0]
