"""What the solver is told about forecast steps: feedback of the latents while skipping, and a replay once a run ends.

A forecast extrapolates along the latents that the computed steps saw; it does not look at the latents of its own step.
Two corrections make up for that. Neither calls the denoiser: both are arithmetic on latents.

*Feedback*, on each forecast step. The forecast belongs to the latents x^ = sum_j w_j x_j that its own weights
extrapolate; the solver holds x. The clean picture is moved by g (x - x^), with g as far as the newest computed steps
show (gains.py).

*Replay*, on the computed step that ends a run. Its output lies at the far end of the run, so the skipped outputs can be
*interpolated* by then, several times closer to the truth than extrapolated. The solver is stepped again over the run
from where the run began, on a copy of its state, and the latents it arrives at take the place of the current ones. This
is the corrector of a predictor-corrector method (Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I,
III.1) over a run of skipped steps, written in the predicted clean picture as DPM-Solver++ is (Lu et al., 2022,
arXiv:2211.01095). The output that ends the run moves with the latents as far as that step shows, left out of
its own forecast. It works for any deterministic scheduler, because it is its own `step` that runs again.

The computed step's own output answers the latents that were seen, not the corrected ones, and everything forecast or
interpolated from it must belong to those. How far its clean picture follows the correction decides whether a large one
does good: theory lets it follow whole late in a run, where a denoiser that draws what it sees back to its data follows
by less, and then a corrected run can end further from the plain one than one that is not. What a line through the two
computed steps before missed here, over how far off the latents were, bounds it from above for rows of `theory`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from ..prediction import Prediction
from ..trace import Trace
from .entries import HIGHEST, Entry, Group, by_row, grouped, mixed_weights, newest, weighted
from .gains import LINE, bounded_gain, ending_gain, forecast_gain

KEPT_STEPS = 40
"""Steps remembered at most; latents are small beside a block's tokens."""

Used = Mapping[int, tuple[list[int], list[float]]]
"""For each forecast row: the steps its forecast was made from and their weights."""


class Replay:
    """Remembers the scheduler's steps of one run and corrects what forecasts did to the latents.

    Args:
        trace: told, once, why nothing is corrected where that is so.
        degree: of the interpolation in each row; its nodes are the computed step that ends the run and those before
            it. Between 1 and 2 both are mixed; 0 replays nothing.
        observe: told of every step before it is taken: the steps before, and this one.
        theory: rows whose forecasts are fed back by theory alone, and whose corrections are held against a line:
            whoever chooses their orders by what forecasts fed back so would have missed, as ScheduledTaylor does, has
            measured already what else would be measured here.
    """

    def __init__(
        self,
        trace: Trace,
        degree: Callable[[int], float] = lambda row: 2.0,
        observe: Callable[[Any, list[Entry], Entry], None] | None = None,
        theory: Callable[[int], bool] = lambda row: False,
    ) -> None:
        self.trace, self.degree, self.observe, self.theory = trace, degree, observe, theory
        self.entries: list[Entry] = []
        self._prediction: Prediction | None = None
        self._signature = inspect.Signature()
        self._off = False

    def clear(self) -> None:
        self.entries.clear()
        self._off = False

    def correct(
        self,
        scheduler: Any,
        step: Callable[..., Any],
        index: int,
        u: float,
        computed: list[bool],
        tie: int,
        used: Used,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        noisy: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for the scheduler's step that is about to be taken, corrected where due.

        Args:
            scheduler: what takes the steps: it, or the solver in its place.
            noisy: a step of this run has drawn noise.
        """
        if self._off:
            return args, kwargs
        if not self.entries:  # read once a run: schedules may lie on a device
            self._prediction = getattr(scheduler, "prediction", None) or Prediction.of(scheduler)
            self._signature = inspect.signature(step)
        call = named_call(self._signature, args, kwargs)
        prediction = self._prediction
        reason = self._unfit(scheduler, prediction, call, computed, tie, noisy)
        if reason or prediction is None:
            self._off = True
            self.entries.clear()
            self.trace.warn(f"latents are not corrected after forecasts: {reason}")
            return args, kwargs
        output, sample = call["model_output"], call["sample"]
        rows = range(len(sample))
        mask = computed * (len(sample) // len(computed))
        now = Entry(index, u, mask, sample, prediction.clean(u, sample, output), sample, call)
        spares = spares_single_forecasts(scheduler)
        skipped = [row for row in rows if not mask[row] and row in used and not (spares and self._alone(row, False))]
        if skipped:
            output = self._feed_back(prediction, now, skipped, used)
        if self.observe is not None:
            self.observe(prediction, self.entries, now)
        ended = [
            row for row in rows
            if mask[row] and self.entries and not self.entries[-1].computed[row] and self.degree(row)
            and not (spares and self._alone(row, True))
        ]  # fmt: skip
        for (before, done, theory), picked in grouped(ended, partial(self._ending, u)).items():
            group = Group(picked, sample)
            here = now.of(group)
            here.sample = self._replay(scheduler, prediction, before, group, now)
            gain = (bounded_gain if theory else ending_gain)(
                prediction, here, [self.entries[place].of(group) for place in done]
            )
            moved = here.clean + gain * (here.sample.float() - here.seen.float())
            output = group.into(output, prediction.output(u, here.sample, moved))
            now.sample = group.into(now.sample, here.sample)
            if theory:
                now.hold(moved, group)
        now.scheduler = snapshot(scheduler)
        call = {**call, "model_output": output, "sample": now.sample}
        now.call = {**call, "model_output": output.clone()}  # a CUDA graph would write its next output there
        self.entries.append(now)
        del self.entries[:-KEPT_STEPS]
        return (), call

    def remember_result(self, result: Any) -> None:
        """Note what the step that was just taken returned, to see whether the pipeline passes it on as it is."""
        if self.entries and self.entries[-1].result is None:
            self.entries[-1].result = result[0]

    def _unfit(
        self,
        scheduler: Any,
        prediction: Prediction | None,
        call: dict[str, Any],
        computed: list[bool],
        tie: int,
        noisy: bool,
    ) -> str:
        output, sample = call.get("model_output"), call.get("sample")
        if not isinstance(output, torch.Tensor) or not isinstance(sample, torch.Tensor):
            return f"{type(scheduler).__name__}.step does not take model_output and sample"
        if prediction is None:
            return f"it is not known how {type(scheduler).__name__} reads the denoiser's output"
        if noisy:
            return "the solver adds noise in its steps"
        if output.shape != sample.shape or len(sample) not in (len(computed), tie * len(computed)):
            return "the scheduler steps another batch than the denoiser"
        if self.entries:
            passed = self.entries[-1].result
            same = passed is sample or (
                passed is not None and passed.shape == sample.shape and torch.equal(passed.to(sample.dtype), sample)
            )
            if not same:
                return "the pipeline changes the latents between steps"
        return ""

    def _feed_back(self, prediction: Prediction, now: Entry, rows: list[int], used: Used) -> torch.Tensor:
        """The outputs of a forecast step, with the clean pictures moved to the latents that the solver really holds."""
        output, by_step = now.call["model_output"], {entry.step: entry for entry in self.entries}

        def common(row: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
            steps = tuple(used[row][0])
            done = () if self.theory(row) else newest(self.entries, row, len(steps) + 2)
            return (steps, done) if all(step in by_step for step in steps) else None

        for (steps, done), some in grouped(rows, common).items():
            group = Group(some, now.sample)
            here, nodes = now.of(group), [by_step[step].of(group) for step in steps]
            weights = by_row([used[row][1] for row in some], now.sample)
            gain = forecast_gain(prediction, now.u, [self.entries[place].of(group) for place in done], len(steps))
            held, seen = here.sample.float(), weighted([node.seen for node in nodes], weights)
            there = prediction.clean(now.u, seen, group.of(now.call["model_output"]))
            belongs = seen
            if any(node.held is not None for node in nodes):
                there = there + weighted([node.pair[1] - node.clean for node in nodes], weights)
                belongs = weighted([node.pair[0] for node in nodes], weights)
            moved = there + gain * (held - belongs)
            now.clean = group.into(now.clean, moved)
            output = group.into(output, prediction.output(now.u, held, moved))
        return output

    def _ending(self, u: float, row: int) -> tuple[tuple[int, ...], tuple[int, ...], bool] | None:
        """What rows have in common that are replayed together, when the step at `u` ends their run.

        Returns: places of the entries that are interpolated between, beside that step; of those that tell how far its
            output moves; and whether theory bounds it. None where nothing can be replayed.
        """
        nodes, theory = newest(self.entries, row, HIGHEST, u), self.theory(row)
        return (nodes, newest(self.entries, row, LINE, u if theory else None), theory) if nodes else None

    def _alone(self, row: int, computed: bool) -> bool:
        """Whether no two steps in a row were forecast in `row`, the current one, `computed` or not, among them."""
        done = [*(entry.computed[row] for entry in self.entries), computed]
        return all(a or b for a, b in pairwise(done))

    def _replay(
        self, scheduler: Any, prediction: Prediction, before: tuple[int, ...], group: Group, now: Entry
    ) -> torch.Tensor:
        """Step again from the entry after the newest of `before`; the latents that the rows of `group` arrive at."""
        run = self.entries[before[0] + 1 :]
        nodes = [now.of(group), *(self.entries[place].of(group) for place in before)]
        levels, degrees = [node.u for node in nodes], [self.degree(row) for row in group.rows]
        again = snapshot(run[0].scheduler)
        state = run[0].sample
        for entry in run:
            weights = by_row([mixed_weights(levels, entry.u, degree) for degree in degrees], state)
            held = group.of(state).float()
            belongs = weighted([node.pair[0] for node in nodes], weights)
            clean = weighted([node.pair[1] for node in nodes], weights)
            clean = clean + prediction.gain(entry.u) * (held - belongs)
            output = group.into(entry.call["model_output"], prediction.output(entry.u, held, clean))
            entry.sample = group.into(entry.sample, held)
            entry.scheduler = snapshot(again)
            entry.call = {**entry.call, "model_output": output, "sample": entry.sample}
            state = again.step(**{**entry.call, "sample": state})[0]
        merge_state(scheduler, again, group, len(state))
        return group.of(state).to(now.sample.dtype)


def spares_single_forecasts(scheduler: Any) -> bool:
    """Whether forecasts that all stand alone between computed steps are better left as they are: PNDM that starts by
    Runge-Kutta.

    Errors of successive ones come to cancel there, and what moves them or the latents after them costs 1.7 dB; longer
    runs gain by being corrected as elsewhere (measured, docs/solvers.md).
    """
    stages = getattr(getattr(scheduler, HELD, scheduler), "prk_timesteps", None)
    return stages is not None and len(stages) > 0


def named_call(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a scheduler's step by name."""
    call = dict(signature.bind(*args, **kwargs).arguments)
    extra = call.pop("kwargs", {})
    return {**call, **extra}


def snapshot(scheduler: Any) -> Any:
    """A copy of a scheduler, and of one that it holds, that can be stepped without moving the original."""
    twin = copy.copy(scheduler)
    for name in ("step", "set_timesteps"):
        twin.__dict__.pop(name, None)
    for name, value in twin.__dict__.items():
        if isinstance(value, list):
            twin.__dict__[name] = list(value)
        elif isinstance(value, torch.Tensor) and value.ndim > 1:
            twin.__dict__[name] = value.clone()  # PNDM adds to what it remembers in place
        elif name == HELD:
            twin.__dict__[name] = snapshot(value)
    return twin


HELD = "solver"
"""Attribute under which a multistep solver in a scheduler's place holds the one of diffusers."""


def merge_state(scheduler: Any, twin: Any, group: Group, batch: int) -> None:
    """Take the rows of `group` of all that `twin` remembers (earlier outputs, last sample) into `scheduler`."""

    def merged(mine: Any, theirs: Any) -> Any:
        if (
            isinstance(mine, torch.Tensor)
            and isinstance(theirs, torch.Tensor)
            and mine.ndim > 1
            and mine.shape == theirs.shape
            and mine.shape[0] == batch
        ):
            return group.into(mine, group.of(theirs))
        return mine

    for name, mine in list(scheduler.__dict__.items()):
        theirs = twin.__dict__.get(name)
        if name == HELD:
            merge_state(mine, theirs, group, batch)
        elif isinstance(mine, list) and isinstance(theirs, list):
            scheduler.__dict__[name] = [merged(a, b) for a, b in zip(mine, theirs, strict=True)]
        else:
            scheduler.__dict__[name] = merged(mine, theirs)
