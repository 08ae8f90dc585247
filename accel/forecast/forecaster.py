"""Drives a denoiser: at every call, which samples are computed and which are forecast, and the forecast itself.

What is forecast is the last block's output; embedding, output head and the true timestep's modulation always run
(last-block forecast of CG-Taylor, 2025, arXiv:2508.02240). Every row of a batch keeps its own history and is decided
by itself; rows that carry the same latents (guidance batched in one tensor) belong to one sample and are tied. Where
several streams leave the model (a video and its sound), each is forecast, and the one forecast worst decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from ...errors import ConflictError
from ..denoiser import Denoiser, Rows, Site, echo
from ..families import Stack
from ..inputs import agreement, tied_rows
from ..part import BlockSite, Current, Part, Shared
from ..policy import Forecasting, Policy
from ..prediction import Prediction
from ..ranks import ASKED, COMPUTED, agree
from ..streams import named_result, rows_of, several, streams_in, with_streams
from ..trace import Call
from .active import Active, Branch
from .errors import measure
from .history import History
from .partial import comparable, possible
from .replay import Entry, Replay
from .rounding import COARSE

FORECAST = "forecast"
EXPERTS = ("transformer", "transformer_2")
"""Denoisers of a pipeline that take turns over the noise levels."""


class Forecaster(Part):
    """Decides and forecasts for the denoisers of one pipeline, each sample under a policy of its own.

    Args:
        makers: make the policy of a sample for one run: one maker for all samples, or one for each.
        correct: replay the solver over each finished run of forecasts with interpolated outputs (see replay.py).
    """

    place = "forecast"
    remembers = (
        "_policies",
        "replay",
        "_branches",
        "_decided",
        "_depths",
        "_orders",
        "_tie",
        "_used",
        "_active",
        "_ties",
    )

    def __init__(self, makers: Sequence[Callable[[], Policy]], shared: Shared, correct: bool) -> None:
        self.makers, self.trace, self.clock = list(makers), shared.trace, shared.clock
        self.asks_first_block = any(make().probes for make in makers)
        self._corrects = [correct] * len(self.makers)
        self._experts: set[str] = set()
        super().__init__(shared)

    def start(self) -> None:
        """Remember nothing of a run."""
        self._policies: list[Policy] = []
        self.replay = self._new_replay() if any(self._corrects) else None
        self._branches: dict[tuple[str, str], Branch] = {}
        self._ties: dict[tuple[str, str, int], int] = {}
        self._decided: list[bool] | None = None
        self._depths: dict[int, int] = {}
        self._orders: list[int | None] = []
        self._tie = 1
        self._used: dict[int, tuple[list[int], list[float]]] = {}
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

    def attach(self, denoiser: Denoiser) -> None:
        if denoiser.name in EXPERTS:
            self._experts.add(denoiser.name)

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""
        self._branches.clear()
        self._ties.clear()
        self._policies.clear()
        self._decided = None
        if self.replay is not None:
            self.replay.clear()

    def leave(self, denoiser: str) -> None:
        """Free the histories of a transformer that the run has left."""
        for key in [key for key in self._branches if key[0] == denoiser]:
            del self._branches[key]

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
        for row, made in measure(prediction, entries, now, asking).items() if asking else ():
            self._policies[row % samples].observe(made)

    def begin(self, current: Current) -> None:
        """A call of the transformer begins."""
        self._active = Active(current, self._tied(current))

    def _tied(self, current: Current) -> int:
        """Rows of one sample. Looked up in the first call of a branch; whether it still holds is seen later."""
        key = (current.denoiser.name, current.moment.branch, current.batch)
        known = self._ties.get(key)
        if known is None:
            known = self._ties[key] = tied_rows(current.named, self.clock.reads)
        elif known > 1:

            def seen(agrees: float) -> None:
                if not agrees:
                    self._ties.pop(key, None)

            self.clock.reads.later(agreement(current.named, known), seen)
        return known

    def abort(self) -> None:
        """The call under way ended with an exception."""
        self._active = None

    def finish(self, current: Current, call: Call | None) -> Call | None:
        """The call under way is over; what was decided in it, or None where no block was reached."""
        active, self._active = self._active, None
        if active is None or call is None:
            return call
        denoiser, moment = active.current.denoiser, active.current.moment
        if not active.computed:
            self.trace.warn(f"{denoiser.name} ran without reaching its first block; nothing was decided there")
            return None
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
        stack, named, timings = denoiser.stacks[index], site.named(args, kwargs), self.trace.timings
        if index == 0:
            return self._first_block(active, site, args, kwargs)
        if active.branch is None:  # the first block was left out of this call, so nothing was decided
            return site.proceed(*args, **kwargs)
        if index == 1:
            active.begin = timings.mark(named)
        cutter = active.cutter_at(index)
        if all(active.computed) or (cutter is not None and len(cutter.rows) == cutter.batch):
            result = site.proceed(*args, **kwargs)
        elif cutter is None:
            result = echo(named, stack)
        else:
            result = active.current.run_rows(cutter, site.proceed, named, stack)
        self._keep_reached(active, index, stack, result)
        if index == len(denoiser.blocks) - 1:
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
        self._plan(active, streams_in(named, stack, active.current.named, batch))
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
            for policy, done in zip(active.policies, active.computed, strict=True):
                policy.decided(active.current.moment, active.current.denoiser.name, done)
        rows = active.rows
        if active.current.moment.leader:
            asking = [row for row in rows if active.policies[row % len(active.computed)].probes]
            active.firsts = {(name, row): x[row].clone() for name, x in active.first.items() for row in asking}
        active.note_endings()
        self._keep_reached(active, 0, stack, result)
        if rows and len(rows) < batch:
            active.cutter = Rows(rows, batch, hidden.device)
        timings.span("gate and forecast", begin, timings.mark(named))
        return result

    def _plan(self, active: Active, streams: dict[str, torch.Tensor]) -> None:
        """Decide what can be decided before the first block; an empty reason is left for the gate."""
        moment, denoiser = active.current.moment, active.current.denoiser
        batch = len(next(iter(streams.values())))
        if len(self.makers) > 1 and batch % len(self.makers) == 0:
            active.tie = batch // len(self.makers)  # strangers with one seed begin with the same latents, too
        elif batch % active.tie:
            active.tie = 1
        samples = batch // active.tie
        active.policies = self._policies_of(samples, active.current)
        active.at = [moment.u if p.coordinate == "sigma" else float(moment.step) for p in active.policies]
        changed = self._open_branch(active, streams) or denoiser.must_compute(active.current.named)
        histories = active.histories
        active.apart = {name: [None] * samples for name in streams} if several(denoiser.stacks[-1]) else {}
        active.error, active.order = [None] * samples, [None] * samples
        active.computed, active.reason = [True] * samples, [""] * samples
        follows = not moment.leader and self._decided is not None and len(self._decided) == samples
        for s in range(samples):
            history, policy = histories[active.rows_of(s)[0]], active.policies[s]
            reason = changed or doubt(history, active.at[s])
            if not history.anchors:  # forgotten in one stream, forgotten in all
                for found in active.streams.values():
                    for row in active.rows_of(s):
                        found[row].clear()
            if reason:
                active.reason[s] = reason
            elif follows and self._decided is not None:
                # A branch that joined later, or lost its history, may not extrapolate from less than the leader has.
                poorer = not self._decided[s] and len(history.anchors) < min(2, (self._orders[s] or 0) + 1)
                active.computed[s] = self._decided[s] or poorer
                follow = "too little history" if poorer else "follows the first branch"
                active.reason[s] = follow if active.computed[s] else FORECAST
            else:
                active.reason[s] = policy.forced(moment, history) or ""
                if not active.reason[s]:
                    active.computed[s] = False
                    if not policy.probes:
                        refused = self._accept(active, s)
                        active.computed[s], active.reason[s] = refused is not None, refused or FORECAST
            if not active.computed[s]:
                self._weigh(active, s, follows)
                active.order[s] = len(active.weights[s]) - 1
                self._compute_part(active, s, follows)
        self._tie_samples(active)

    def _compute_part(self, active: Active, sample: int, follows: bool) -> None:
        """Run the first blocks of a forecast sample, where its policy has a partial step here."""
        policy, rows = active.policies[sample], active.rows_of(sample)
        due = sample in self._depths if follows else policy.depth > 0 and policy.partial(active.current.moment)
        found = [found[row] for found in active.streams.values() for row in rows]
        if due and possible(found, len(active.weights[rows[0]])):
            active.partial.depth[sample] = policy.depth

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

    def _agree(self, active: Active, device: torch.device) -> bool:
        """Compute what another process that shares the transformer has to compute.

        Returns: whether a process is left to ask its gate, so that all have to agree again.
        """
        ranks = active.current.denoiser.ranks
        if ranks is None:
            return False
        needs = [
            COMPUTED if done else 0 if reason else ASKED
            for done, reason in zip(active.computed, active.reason, strict=True)
        ]
        agreed = agree(needs, ranks, device)
        for s, (mine, most) in enumerate(zip(needs, agreed, strict=True)):
            if most > mine:
                active.computed[s], active.reason[s], active.order[s] = True, "another process computes", None
        return ASKED in agreed

    def _accept(self, active: Active, sample: int) -> str | None:
        """Ask the policy about every stream of a sample: None to forecast, or why not."""
        row, refusals = active.rows_of(sample)[0], []
        for name, histories in active.streams.items():
            refusals.append(active.policies[sample].accept(active.current.moment, histories[row], None))
            error = histories[row].expected
            if name in active.apart:
                active.apart[name][sample] = error
            if error is not None:
                active.error[sample] = max(error, active.error[sample] or 0.0)
        return next((refusal for refusal in refusals if refusal is not None), None)

    @staticmethod
    def _tie_samples(active: Active) -> None:
        """Compute all samples where one is computed and the pipeline keeps keys and values that are not cut down."""
        waiting = any(not reason for reason in active.reason)
        if active.current.denoiser.keeps(active.current.named) and any(active.computed) and not waiting:
            for s, done in enumerate(active.computed):
                if not done:
                    active.computed[s], active.reason[s] = True, "shares a cache"

    def _weigh(self, active: Active, sample: int, follows: bool) -> None:
        """Choose the anchors and weights of a sample's forecast: the same in all its rows and branches.

        Guidance takes the difference of branches, in which a common error cancels and a separate one is multiplied.
        """
        rows = active.rows_of(sample)
        # Where there are several streams, the one forecast worst chooses for all.
        histories = max(active.streams.values(), key=lambda found: found[rows[0]].expected or 0.0)
        if follows and sample in self._used:
            steps, weights = self._used[sample]
        else:
            weights = histories[rows[0]].weights(active.at[sample])
            steps = [a.step for a in histories[rows[0]].anchors[: len(weights)]]
        for row in rows:
            same = [a.step for a in histories[row].anchors[: len(weights)]] == steps
            active.weights[row] = weights if same else histories[row].weights(active.at[sample])

    def _open_branch(self, active: Active, streams: dict[str, torch.Tensor]) -> str:
        """Find the state of this call's branch, or begin it anew and say why."""
        current = active.current
        key = (current.denoiser.name, current.moment.branch)
        main, *others = streams.items()
        signature = current.signature(main[1]) + tuple((name, tuple(tensor.shape)) for name, tensor in others)
        branch = self._branches.get(key)
        if branch is None or branch.signature != signature:
            reason = "first step" if branch is None else current.changed or "inputs changed"
            if branch is not None and self.replay is not None:
                self.replay.clear()  # what was computed before answers another question
            fresh = {
                name: [self._fresh_history(p) for _ in range(active.tie) for p in active.policies] for name in streams
            }
            for histories in fresh.values():
                for history in histories:
                    history.ranks = current.denoiser.ranks
            branch = Branch(signature, fresh)
            self._branches[key] = branch
            if main[1].dtype in COARSE and any(history.rated for history in branch.rows):
                active.sizes = {}
            active.branch = branch
            return reason
        active.branch = branch
        return ""

    def _policies_of(self, samples: int, current: Current) -> list[Policy]:
        """The policies of a run's samples, made when it begins."""
        if len(self._policies) != samples:
            if len(self.makers) not in (1, samples):
                raise ConflictError(
                    f"{len(self.makers)} samples were given a dial of their own and the denoiser is called with "
                    f"{samples}: give each sample one, or one for all"
                )
            self._policies = [self.makers[s if len(self.makers) > 1 else 0]() for s in range(samples)]
            levels = self.clock.levels
            levels = None if levels is None else levels[self.clock.first :]
            for policy in self._policies:
                policy.begin(levels, max(1, len(self._experts)), self.trace.warn, self._divisible(current))
        return self._policies

    def _divisible(self, current: Current) -> int:
        """Blocks of the denoiser that is called, where a step may compute some of them; else 1.

        Processes that share a transformer run every block together, a cache of keys and values wants every block's, and
        what is left out inside of blocks is decided for whole calls.
        """
        denoiser = current.denoiser
        apart = any(part.place in ("bricks", "attention") for part in self.shared.parts)
        return 1 if apart or denoiser.ranks is not None or denoiser.keeps(current.named) else len(denoiser.blocks)

    def _fresh_history(self, policy: Policy) -> History:
        history = policy.history()
        if self.clock.noisy:
            self._calm(history)
        return history

    def _calm(self, history: History) -> None:
        """Keep forecasts at order 1 where noise is added: what they follow is not smooth then."""
        if history.max_order > 1:
            self.trace.warn("the solver adds noise in its steps, which is not smooth: the forecast is kept at order 1")
            history.max_order = 1
            history.order = None if history.order is None else 1
            history.gate_order = None if history.gate_order is None else min(1, history.gate_order)

    def _probe(self, active: Active, undecided: list[int]) -> None:
        """Ask the gate about the undecided samples: how well is the first block's output forecast?"""
        histories = active.histories
        errors: list[torch.Tensor] = []
        unknown: set[int] = set()
        for name, truths in active.first.items():
            for s in undecided:
                measured = []
                for row in active.rows_of(s):
                    found = active.streams[name][row].first_error(active.at[s], active.weights[row], truths[row])
                    if found is None:  # what followers make of the first block is not kept
                        unknown.add(s)
                    measured.append(truths.new_full((), torch.nan).float() if found is None else found)
                errors.append(measured[0] if len(measured) == 1 else torch.stack(measured).mean())
        told = self.clock.reads.read(errors)
        by_stream = [
            [
                active.streams[name][active.rows_of(s)[0]].first_missed(active.at[s], active.weights[s], told.pop(0))
                for s in undecided
            ]
            for name in active.first
        ]
        for name, some in zip(active.apart, by_stream, strict=False):
            for s, value in zip(undecided, some, strict=True):
                active.apart[name][s] = value if value == value else None
        # The worst stream decides; one that is not a number is the worst.
        worst = [
            max(values, key=lambda value: math.inf if value != value else value)
            for values in zip(*by_stream, strict=True)
        ]
        for s, error in zip(undecided, worst, strict=True):
            finite = error == error and abs(error) != float("inf")
            active.error[s] = error if finite else None
            refused = "not finite" if s not in unknown else "never led before"
            if self.clock.unexpected:
                refused = "timestep unexpected"
            elif finite:
                for row in active.rows_of(s):
                    refused = active.policies[s].accept(active.current.moment, histories[row], error)
            active.computed[s], active.reason[s] = refused is not None, refused or FORECAST
            if refused is None:
                active.probed += 1
        self._tie_samples(active)

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


def doubt(history: History, at: float) -> str:
    """Why nothing can be forecast from `history` at `at`, or an empty string."""
    anchors = history.anchors
    if not anchors:
        return "no history"
    if at == anchors[0].at:
        return "same noise level"
    if len(anchors) > 1 and (at - anchors[0].at) * (anchors[0].at - anchors[1].at) < 0:
        history.clear()
        return "noise level turned back"
    return ""
