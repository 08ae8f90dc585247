"""Leaves bricks out of denoisers: which, at this noise level, and what stands in for them.

Every row of the batch and every guidance branch has a state of its own, so that a sample's picture does not depend on
its batch mates. What a brick changed is summed over its blocks, each its result less its argument: what a model adds
between blocks, such as a ControlNet's residuals, is added afresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ...errors import ConfigError
from ..denoiser import Denoiser, Rows, Site, echo, require_plain_batch
from ..families import Stack
from ..part import BlockSite, Current, Part, Shared
from ..trace import Call
from .brick import Brick

ROUNDING = 1e-6
"""Of the noise levels in a schedule."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Blocks of one stack that every brick of the schedule leaves out together or not at all."""

    first: int
    last: int
    bricks: tuple[Brick, ...]

    def share(self, level: float) -> float:
        """Share of the steps at noise `level` that leave the segment out."""
        return max((b.share for b in self.bricks if b.low - ROUNDING <= level <= b.high + ROUNDING), default=0.0)

    def wanted(self, level: float) -> bool:
        """Whether it may be left out at this level or, as noise falls, at a later one."""
        return any(b.low <= level + ROUNDING for b in self.bricks)


@dataclass(slots=True)
class SegmentState:
    """What is known of a segment in one guidance branch of one denoiser."""

    signature: tuple[Any, ...]
    """What must stay the same for the rest to hold."""

    owed: list[float]
    """For each row, the share of a step that it is still to be left out."""

    ready: list[bool]
    """For each row, whether it has run and its change is known."""

    change: dict[str, torch.Tensor] = field(default_factory=dict)
    """What it last added to each argument that its results replace, rows of the whole batch."""


@dataclass(slots=True)
class Visit:
    """One segment in the denoiser call under way."""

    state: SegmentState
    rows: list[int]
    """Rows of the batch that its blocks are given."""
    out: list[int]
    """Places among those rows that are left out."""
    cutter: Rows | None
    """Runs the others, where there are some of both."""
    change: dict[str, torch.Tensor] | None
    """What the blocks have added so far; None where nobody will ask."""


class BrickEngine(Part):
    """The blocks of one pipeline's denoisers under a schedule.

    Args:
        bricks: the schedule.
        reuse: whether the change that a brick made when it last ran stands in for it, or nothing at all.
    """

    place = "bricks"
    remembers = ("_states", "_visits", "_left_out")

    def __init__(self, bricks: Sequence[Brick], reuse: bool, shared: Shared) -> None:
        super().__init__(shared)
        self.bricks, self.reuse, self.trace = tuple(bricks), reuse, shared.trace
        self._segments: dict[str, dict[int, Segment]] = {}

    def start(self) -> None:
        self._states: dict[tuple[str, str, int], SegmentState] = {}
        self._visits: dict[int, Visit] = {}
        self._left_out: dict[int, int] = {}

    def attach(self, denoiser: Denoiser) -> None:
        """Lay the schedule over the blocks of `denoiser`. Raises: ConfigError where it names others."""
        require_plain_batch(denoiser, "BrickSkipping")
        blocks = len(denoiser.blocks)
        for brick in self.bricks:
            if brick.last >= blocks:
                raise ConfigError(
                    f"the schedule leaves out block {brick.last}, and {denoiser.name} ({denoiser.family.name}) has "
                    f"{blocks}: 0 to {blocks - 1}"
                )
        asked = any(part.asks_first_block for part in self.shared.parts)
        first = 1 if asked else 0
        if asked and any(brick.first == 0 for brick in self.bricks):
            self.trace.warn("block 0 runs whatever the schedule says: the gate asks it at every step")
        found = segments(self.bricks, denoiser.stacks, first)
        self._segments[denoiser.name] = {i: s for s in found for i in range(s.first, s.last + 1)}

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""
        self._states.clear()
        self._visits.clear()
        self._left_out.clear()

    def site(self, denoiser: Denoiser, index: int, site: Site) -> Site:
        """The block's call, with the schedule asked before it is made."""
        if index not in self._segments[denoiser.name]:
            return site
        return BlockSite(site, partial(self._block, denoiser, index))

    def finish(self, current: Current, call: Call | None) -> Call | None:
        """The denoiser call under way is over: note in its record what was left out."""
        if call is not None:
            samples = len(call.computed)
            tie = max(1, max(current.batch, *self._left_out, 1) // samples)
            call.skipped = [0.0] * samples
            for row, blocks in self._left_out.items():
                call.skipped[row % samples] += blocks / tie
            call.blocks -= sum(call.skipped)
        self._visits.clear()
        self._left_out.clear()
        return call

    def _block(self, denoiser: Denoiser, index: int, site: Site, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One call of a block that lies in a segment."""
        current = self.shared.current
        segment = self._segments[denoiser.name][index]
        if current is None or current.denoiser is not denoiser:
            return site.proceed(*args, **kwargs)
        stack, named = denoiser.stacks[index], site.named(args, kwargs)
        if index == segment.first:
            self._visits[segment.first] = self._visit(current, segment, stack, named)
        visit = self._visits.get(segment.first)
        if visit is None:  # its first block was passed over in this call
            return site.proceed(*args, **kwargs)
        for place in visit.out:
            row = visit.rows[place]
            self._left_out[row] = self._left_out.get(row, 0) + 1
        # Some blocks add to their argument in place.
        before = {} if visit.change is None else {n: copied(named.get(n)) for n in stack.returns}
        if not visit.out:
            result = site.proceed(*args, **kwargs)
        elif visit.cutter is None:
            result = echo(named, stack)
        else:
            result = self._run_some(current, visit, visit.cutter, site, named, stack)
        if visit.out and index == segment.first:
            result = self._stand_in(visit, named, stack, result)
        if visit.change is not None:
            add_changes(visit.change, before, result, stack)
            if index == segment.last:
                self._remember(visit)
        return result

    def _visit(self, current: Current, segment: Segment, stack: Stack, named: dict[str, Any]) -> Visit:
        """Decide about every row that reaches the segment."""
        hidden: torch.Tensor = named[stack.hidden]
        rows = current.rows if current.rows is not None else list(range(hidden.shape[0]))
        state = self._state(current, segment, hidden, len(rows))
        level = current.moment.u
        share = segment.share(level)
        out = []
        for place, row in enumerate(rows):
            state.owed[row] += share
            if state.owed[row] < 1.0 - ROUNDING:
                continue
            if self.reuse and not state.ready[row]:
                state.owed[row] = 0.0
                continue
            state.owed[row] -= 1.0
            out.append(place)
        cutter = None
        if 0 < len(out) < len(rows):
            cutter = Rows([place for place in range(len(rows)) if place not in out], len(rows), hidden.device)
        kept = self.reuse and len(out) < len(rows) and segment.wanted(level)
        return Visit(state, rows, out, cutter, {} if kept else None)

    def _state(self, current: Current, segment: Segment, hidden: torch.Tensor, rows: int) -> SegmentState:
        """The state of a segment in this call's branch; new where what the transformer is given has changed."""
        key = (current.denoiser.name, current.moment.branch, segment.first)
        batch = max(rows, current.batch)
        signature = (batch, *current.signature(hidden[:1]))
        state = self._states.get(key)
        if state is None or state.signature != signature:
            state = self._states[key] = SegmentState(signature, [0.0] * batch, [False] * batch)
        return state

    def _run_some(
        self, current: Current, visit: Visit, cutter: Rows, site: Site, named: dict[str, Any], stack: Stack
    ) -> Any:
        """Run a block for the rows that keep it."""
        given = current.rows
        current.rows = [visit.rows[place] for place in cutter.rows]
        try:
            return cutter.run(site.proceed, named, stack)
        finally:
            current.rows = given

    def _stand_in(self, visit: Visit, named: dict[str, Any], stack: Stack, result: Any) -> Any:
        """`result` with the change that the segment last made added in the rows that are left out."""
        if not self.reuse:
            return result
        changes = visit.state.change
        if len(visit.out) < len(visit.state.ready):
            changes = {name: _spread(change, visit) for name, change in changes.items()}
        return with_changes(result, stack, changes)

    def _remember(self, visit: Visit) -> None:
        """Keep what the segment changed in the rows that ran."""
        state = visit.state
        ran = [place for place in range(len(visit.rows)) if place not in visit.out]
        for name, change in visit.change.items() if visit.change else ():
            kept = state.change.get(name)
            if len(ran) == len(state.ready) or kept is None or kept.shape[1:] != change.shape[1:]:
                if len(ran) == len(state.ready):
                    state.change[name] = change
                    continue
                kept = state.change[name] = change.new_zeros((len(state.ready), *change.shape[1:]))
            places = torch.tensor(ran, device=change.device)
            rows = torch.tensor([visit.rows[place] for place in ran], device=change.device)
            kept.index_copy_(0, rows, change.index_select(0, places))
        for place in ran:
            state.ready[visit.rows[place]] = True


def copied(value: Any) -> torch.Tensor | None:
    """A tensor as it is now; None of anything else."""
    return value.clone() if isinstance(value, torch.Tensor) else None


def add_changes(
    changes: dict[str, torch.Tensor], before: dict[str, torch.Tensor | None], result: Any, stack: Stack
) -> None:
    """Add to `changes` what a block made of the arguments that its result replaces."""
    values = result if isinstance(result, tuple) else (result,)
    for name, value in zip(stack.returns, values, strict=True):
        argument = before[name]
        if value is not None and argument is not None:
            own = value - argument
            changes[name] = own if name not in changes else changes[name].add_(own)


def _spread(change: torch.Tensor, visit: Visit) -> torch.Tensor:
    """What is added to each row that reaches the segment: its change where it is left out, else nothing."""
    spread = change.new_zeros((len(visit.rows), *change.shape[1:]))
    places = torch.tensor(visit.out, device=change.device)
    rows = torch.tensor([visit.rows[place] for place in visit.out], device=change.device)
    return spread.index_copy_(0, places, change.index_select(0, rows))


def with_changes(result: Any, stack: Stack, changes: dict[str, torch.Tensor]) -> Any:
    """A block's result with `changes` added to what they were measured of."""
    values = [
        value + changes[name] if value is not None and name in changes else value
        for name, value in zip(stack.returns, result if isinstance(result, tuple) else (result,), strict=True)
    ]
    return tuple(values) if isinstance(result, tuple) else values[0]


def segments(bricks: Sequence[Brick], stacks: Sequence[Stack], first: int) -> list[Segment]:
    """The schedule cut where a brick begins or ends and where one stack of blocks follows another.

    Args:
        stacks: of each block of the transformer.
        first: blocks before this one stay out of it.
    """
    cuts = {first, *(b.first for b in bricks), *(b.last + 1 for b in bricks)}
    cuts |= {i for i in range(1, len(stacks)) if stacks[i] is not stacks[i - 1]}
    edges = sorted(cut for cut in cuts if first <= cut <= len(stacks))
    found = []
    for begin, end in zip(edges, [*edges[1:], len(stacks)], strict=True):
        over = tuple(b for b in bricks if b.first <= begin and b.last >= end - 1)
        if over and begin < end:
            found.append(Segment(begin, end - 1, over))
    return found
