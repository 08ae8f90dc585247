"""Drives a denoiser: runs the blocks for the samples that are computed, and forecasts the others.

What is forecast is the last block's output; the output head and the true timestep's modulation of it always run
(last-block forecast of CG-Taylor, 2025, arXiv:2508.02240), what works for the blocks alone where one of them does (see
inlets.py). Every row of a batch keeps its own history; which samples
are computed is decided in deciding.py. Where several streams leave the model (a video and its sound), each is forecast.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from ...errors import ConflictError, UnsupportedModelError
from ..denoiser import Denoiser, Rows, Site, echo
from ..families import Stack
from ..inputs import agreement
from ..part import BlockSite, Current, Shared
from ..policy import Forecasting, Policy
from ..prediction import Prediction
from ..ranks import agree
from ..streams import Kind, named_result, rows_of, streams_in, with_streams
from ..trace import Call
from .active import Active
from .deciding import Deciding
from .errors import measure, off_scale
from .history import History
from .partial import comparable
from .replay import Entry, Replay


class Forecaster(Deciding):
    """Decides and forecasts for the denoisers of one pipeline, each sample under a policy of its own.

    Args:
        makers: make the policy of a sample for one run: one maker for all samples, or one for each.
        correct: replay the solver over each finished run of forecasts with interpolated outputs (see replay.py).
    """

    remembers = (*Deciding.remembers, "replay", "_tie", "_elsewhere", "_active")

    def __init__(self, makers: Sequence[Callable[[], Policy]], shared: Shared, correct: bool) -> None:
        self.asks_first_block = any(make().probes for make in makers)
        self._corrects = [correct] * len(makers)
        super().__init__(makers, shared)

    def start(self) -> None:
        """Remember nothing of a run."""
        super().start()
        self.replay = self._new_replay() if any(self._corrects) else None
        self._tie = 1
        self._elsewhere = False  # whether other processes compute branches of the guidance
        self._active: Active | None = None

    def assign(self, methods: Sequence[Forecasting]) -> None:
        """Give each sample of the batches to come a method of its own; a single one is for all.

        Raises: ConflictError where a part that is there already was told that the first block is not asked for.
        """
        makers = [method.policy for method in methods]
        asks = any(make().probes for make in makers)
        if asks and not self.asks_first_block and any(part.place == "bricks" for part in self.shared.parts):
            raise ConflictError("a forecast that measures the first block joins bricks late; give it to accelerate")
        self.release()
        self.makers, self._corrects = makers, [method.correct for method in methods]
        if any(self._corrects) and self.replay is None:
            self.replay = self._new_replay()

    def _is_corrected(self, sample: int) -> bool:
        return self._corrects[sample if len(self._corrects) > 1 else 0]

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""
        super().release()
        self.inputs_changed()

    def inputs_changed(self) -> None:
        """What was computed before answers another question."""
        if self.replay is not None:
            self.replay.clear()

    def _degree_of(self, row: int) -> float:
        """Degree of the replay in a row of the latents."""
        return self._policies[row % len(self._policies)].degree if self._policies else 2

    def _new_replay(self) -> Replay:
        return Replay(self.trace, self._degree_of, self._observe, self._measures)

    def _measures(self, row: int) -> bool:
        return bool(self._policies) and self._policies[row % len(self._policies)].measures

    def _observe(self, prediction: Prediction, entries: list[Entry], now: Entry) -> None:
        """Tell the policies that ask for it what a computed step says of their forecasts."""
        samples = len(self._policies)
        asking = [
            row for row, done in enumerate(now.computed) if done and samples and self._policies[row % samples].measures
        ]
        if asking and not entries and (off := off_scale(prediction, now)) is not None:
            guided = self._guided(now)
            for sample, policy in enumerate(self._policies):
                policy.sized(math.inf if guided else max(off[sample::samples]))
        for row, made in measure(prediction, entries, now, asking).items() if asking else ():
            self._policies[row % samples].observe(made)

    def _guided(self, now: Entry) -> bool:
        """Whether guidance made the outputs of this step from branches."""
        if self.clock.calls > 1 or self._elsewhere:
            return True
        stepped = len(now.computed) // len(self._policies)
        if stepped == 1:
            return self._tie > 1
        # All rows that share their latents are stepped: branches if they go on alike, else pictures of one seed.
        return bool(self.clock.reads.read([agreement(now.clean, stepped)])[0])

    def begin(self, current: Current) -> None:
        """A call of the transformer begins."""
        self._active = Active(current, self._tied(current))
        self._foresee(self._active)

    def abort(self) -> None:
        """The call under way ended with an exception."""
        self._active = None

    def finish(self, current: Current, call: Call | None) -> Call | None:
        """The call under way is over; what was decided in it, or None where no block was reached."""
        active, self._active = self._active, None
        if active is None or call is None:
            return call
        denoiser, moment = active.current.denoiser, active.current.moment
        if not active.reached or active.branch is None:
            self.trace.warn(f"{denoiser.name} ran without reaching its first block; nothing was decided there")
            return None
        if not active.current.idle and active.current.made is not None:
            active.branch.given, active.branch.made = active.given, active.current.made
        if moment.leader:
            self._decided, self._tie, self._used = active.computed, active.tie, active.used()
            self._orders, self._depths = active.order, active.partial.depth
        elif self._decided is not None and len(self._decided) == len(active.computed):
            # A follower that had to compute (its history was lost) makes the guided output a computed one only if
            # the leader was; the step counts as computed where every branch was.
            self._decided = [a and b for a, b in zip(self._decided, active.computed, strict=True)]
        call.computed, call.reason, call.error, call.order = (
            active.computed,
            active.reason,
            active.error,
            active.order,
        )
        call.streams = active.apart
        call.partial = active.partial.blocks(len(active.computed))
        call.blocks = float(sum(active.computed) * len(denoiser.blocks) + active.probed + sum(call.partial))
        return call

    def site(self, denoiser: Denoiser, index: int, site: Site) -> Site:
        """The call of a block, made or passed over."""
        return BlockSite(site, partial(self._block, denoiser, index))

    def _block(self, denoiser: Denoiser, index: int, site: Site, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One call of a block."""
        active = self._active
        if active is None or active.current.denoiser is not denoiser:
            return site.proceed(*args, **kwargs)
        if index == 0:
            return self._first_block(active, site, args, kwargs)
        if not active.reached:  # the first block was left out of this call, so nothing was decided
            return site.proceed(*args, **kwargs)
        stack, timings = denoiser.stacks[index], self.trace.timings
        if index == 1:
            active.begin = timings.mark(site.named(args, kwargs))
        cutter = None if active.whole else active.cutter_at(index)
        if active.whole or (cutter is not None and len(cutter.rows) == cutter.batch):
            result = site.proceed(*args, **kwargs)
        elif cutter is None:
            result = echo(site.named(args, kwargs), stack)
        else:
            result = active.current.run_rows(cutter, site.proceed, site.named(args, kwargs), stack)
        self._keep_reached(active, index, stack, result)
        if index == len(denoiser.blocks) - 1:
            named = site.named(args, kwargs)
            end = timings.mark(named)
            timings.span("other blocks", active.begin, end)
            result = self._with_forecasts(active, stack, result)
            timings.span("gate and forecast", end, timings.mark(named))
        return result

    def _first_block(self, active: Active, site: Site, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        denoiser, named = active.current.denoiser, site.named(args, kwargs)
        stack = denoiser.stacks[0]
        hidden: torch.Tensor = named[stack.hidden]
        batch = rows_of(hidden, stack, active.current.batch)
        timings = self.trace.timings
        begin = timings.mark(named)
        streams = streams_in(named, stack, active.current.named, batch)
        kinds = {name: Kind.of(stream) for name, stream in streams.items()}
        if active.branch is None or active.branch.kinds != kinds:
            self._unforeseen(active, kinds)
            self._plan(active, kinds)
        if active.branch is not None:
            active.branch.kinds = kinds
        active.reached = True
        asked = self._agree(active, hidden.device)
        undecided = [s for s, reason in enumerate(active.reason) if not reason]
        need = sorted(
            row
            for s, done in enumerate(active.computed)
            if done or s in undecided or s in active.partial.depth
            for row in active.rows_of(s)
        )
        reached = timings.mark(named)
        timings.span("gate and forecast", begin, reached)
        if len(need) == batch:
            result = site.proceed(*args, **kwargs)
        elif not need:
            result = echo(named, stack)
        else:
            rows = Rows(need, batch, hidden.device)
            result = active.current.run_rows(rows, site.proceed, named, stack)
        begin = timings.mark(named)
        timings.span("first block", reached, begin)
        active.first = streams_in(named_result(result, stack), stack, active.current.named, batch)
        if undecided:
            self._probe(active, undecided)
        if asked:
            self._agree(active, hidden.device)
        if active.current.moment.leader:
            self._elsewhere = denoiser.ranks is not None and denoiser.ranks.branches
            for policy, done in zip(active.policies, active.computed, strict=True):
                policy.decided(active.current.moment, active.current.denoiser.name, done)
        rows = active.rows
        if active.current.moment.leader:
            asking = [row for row in rows if active.policies[row % len(active.computed)].probes]
            active.firsts = {(name, row): x[row].clone() for name, x in active.first.items() for row in asking}
        active.whole = all(active.computed)
        active.note_endings()
        self._keep_reached(active, 0, stack, result)
        if rows and len(rows) < batch:
            active.cutter = Rows(rows, batch, hidden.device)
        timings.span("gate and forecast", begin, timings.mark(named))
        return result

    @staticmethod
    def _unforeseen(active: Active, kinds: dict[str, Kind]) -> None:
        """The first block is not given what was foreseen. Raises: UnsupportedModelError where it is too late."""
        current, denoiser = active.current, active.current.denoiser
        if not current.idle:
            return
        if any(current.made.values() if current.made else ()):
            known = active.branch.kinds if active.branch is not None else {}
            raise UnsupportedModelError(
                f"the first block of {denoiser.name} is given {list(kinds.values())}, and was given "
                f"{list(known.values())} when the transformer was called in the same way; name nothing in "
                f"Family(for_blocks=...) of family '{denoiser.family.name}'"
            )
        current.idle = denoiser.idle = False
        current.made = None

    @staticmethod
    def _keep_reached(active: Active, index: int, stack: Stack, result: Any) -> None:
        """Copy what block `index` gave, of rows whose partial steps end with it, and note how large it is."""
        ending = active.partial.ending.get(index)
        if not ending and active.sizes is None:
            return
        samples, batch = len(active.computed), len(active.histories)
        for name, x in streams_in(named_result(result, stack), stack, active.current.named, batch).items():
            active.note_size(name, x)
            for row in ending or ():
                held = active.firsts if active.computed[row % samples] else active.partial.reached
                held[name, row] = x[row].clone()

    def _with_forecasts(self, active: Active, stack: Stack, result: Any) -> Any:
        """The last block's result with every forecast row of every stream filled in."""
        call, batch = active.current.named, len(active.histories)
        streams = streams_in(named_result(result, stack), stack, call, batch)
        filled = {name: self._filled(active, name, kept, streams[name]) for name, kept in active.streams.items()}
        self._remember(active, filled)
        return with_streams(result, stack, call, batch, filled)

    def _filled(self, active: Active, name: str, histories: list[History], hidden: torch.Tensor) -> torch.Tensor:
        """A stream's tokens with every forecast row filled in."""
        computed = active.rows

        def forecast(row: int) -> torch.Tensor:
            made = self._forecast_row(histories[row], active.weights[row])
            added = active.partial.added(name, row, histories[row], active.weights[row])
            return made if added is None else made + added

        if not computed:
            forecasts = [forecast(row) for row in range(hidden.shape[0])]
            return forecasts[0].unsqueeze(0) if len(forecasts) == 1 else torch.stack(forecasts)
        if len(computed) < hidden.shape[0]:
            for s, done in enumerate(active.computed):
                for row in () if done else active.rows_of(s):
                    hidden[row] = forecast(row)
        return hidden

    def _remember(self, active: Active, streams: dict[str, torch.Tensor]) -> None:
        """Keep the rows that were computed, of every stream. All are looked at together: each answer is waited for."""
        computed, samples, step = active.rows, len(active.computed), active.current.moment.step
        if not computed:
            return
        errors = {
            (name, row): active.streams[name][row].measured(active.at[row % samples], hidden[row])
            for name, hidden in streams.items()
            for row in computed
        }
        sums = [hidden.flatten(1).sum(1, dtype=torch.float32) for hidden in streams.values()]
        sizes = active.told_sizes()
        told = iter(self.clock.reads.read([*sums, *(error for some in errors.values() for error in some), *sizes]))
        finite = [[math.isfinite(next(told)) for _ in range(len(hidden))] for hidden in streams.values()]
        if (ranks := active.current.denoiser.ranks) is not None and ranks.parts is not None:
            lost = iter(agree([int(not whole) for rows in finite for whole in rows], ranks, sums[0].device))
            finite = [[not next(lost) for _ in rows] for rows in finite]
        for (name, row), some in errors.items():
            history, at, learnt = active.streams[name][row], active.at[row % samples], [next(told) for _ in some]
            if not all(rows[row] for rows in finite):
                history.clear()
                self.trace.warn("a block returned values that are not finite; history dropped, steps computed in full")
                continue
            history.learn(at, learnt)
            history.make_room(at)
            first = active.firsts.get((name, row))
            if not comparable(first, streams[name][row]) and active.policies[row % samples].depth:
                active.policies[row % samples].refuse_partial()
                first = None
            history.push(at, step, first, streams[name][row].clone())
        active.learn_noise(list(told))

    @staticmethod
    def _forecast_row(history: History, weights: list[float]) -> torch.Tensor:
        history.skipped += 1
        return history.last(weights)

    def around_step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One step of the scheduler, corrected where a run of forecasts has just ended."""
        clock = self.clock
        replays = self.replay is not None and any(self._corrects)
        if self.replay is not None and replays and self._decided is not None and clock.levels is not None:
            begin = time.perf_counter()
            u = clock.levels[clock.place]
            # To the solver, a sample that is not to be corrected is like one that was computed.
            decided = [done or not self._is_corrected(sample) for sample, done in enumerate(self._decided)]
            solver = self.shared.solver
            stepping = (
                solver if solver is not None and solver.own is clock.scheduler and solver.follows else clock.scheduler
            )
            args, kwargs = self.replay.correct(
                stepping, step, clock.step, u, decided, self._tie, self._used, args, kwargs, clock.noisy
            )
            result = step(*args, **kwargs)
            self.replay.remember_result(result)
            self.trace.parts["correction"] += time.perf_counter() - begin
        else:
            result = step(*args, **kwargs)
        if clock.noisy:
            for branch in self._branches.values():
                for history in branch.rows:
                    self._calm(history)
        self._decided = None
        return result
