"""What the solver is told about forecast steps: feedback of the latents while skipping, and a replay once a run ends.

A forecast extrapolates along the latents that the computed steps saw; it does not look at the latents of its own step.
Two corrections make up for that. Neither calls the denoiser: both are arithmetic on latents.

*Feedback*, on each forecast step. The forecast belongs to the latents x^ = sum_j w_j x_j that its own weights
extrapolate; the solver holds x. The clean picture is moved by g (x - x^). How far is measured: the newest computed
step, forecast from those before it, shows which g would have come nearest to its truth, and the variance of the data
for which a Wiener filter has that g carries it over to the levels of the next skips. What curves the path of the
latents and what curves the outputs along it differ by schedule, so that a g from theory alone (`Prediction.gain`, that
of a Gaussian of unit variance, which serves until there is something to measure) goes the wrong way on Karras and
exponential levels; and g itself, carried over as it is, lags behind where the levels fall fast.

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
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from ...kernels.forecast import combine, lagrange_weights
from ..prediction import Prediction
from ..trace import Trace

KEPT_STEPS = 40
"""Steps remembered at most; latents are small beside a block's tokens."""

LINE = 2
"""Steps that a straight line is drawn through: what departs from it is what the latents' curve did to the output."""

LEAST_MOVE = 0.5
"""Share of what theory has that a clean picture follows corrected latents by, at least."""

Used = Mapping[int, tuple[list[int], list[float]]]
"""For each forecast row: the steps its forecast was made from and their weights."""


@dataclass(slots=True)
class Entry:
    """One scheduler step as it was taken. Shapes: all tensors like the latents."""

    step: int
    u: float
    computed: list[bool]
    seen: torch.Tensor
    """The latents that the denoiser was given."""
    clean: torch.Tensor
    """The clean picture that the denoiser's output predicts from `seen`; of use where the row was computed."""
    sample: torch.Tensor
    """The latents that the solver stepped from: `seen`, or corrected."""
    call: dict[str, Any]
    scheduler: Any = None
    """A copy of the scheduler as it stood before the step."""
    result: torch.Tensor | None = None
    held: torch.Tensor | None = None
    """The clean picture at `at`, where that is not `seen`."""
    at: torch.Tensor | None = None
    """The latents that what is forecast or interpolated from here belongs to, where these are not `seen`."""

    @property
    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents and the clean picture there that forecasts and interpolations are made from."""
        return (self.seen if self.at is None else self.at), (self.clean if self.held is None else self.held)

    def hold(self, clean: torch.Tensor, rows: list[int]) -> None:
        """Let `rows` belong to the corrected latents from now on, with the clean pictures given."""
        if rows:
            at, held = self.pair
            self.at, self.held = _with_rows(at, self.sample, rows), _with_rows(held, clean, rows)


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
        call = named_call(step, args, kwargs)
        if not self.entries:  # read once a run: schedules may lie on a device
            self._prediction = getattr(scheduler, "prediction", None) or Prediction.of(scheduler)
        prediction = self._prediction
        reason = self._unfit(scheduler, prediction, call, computed, tie, noisy)
        if reason or prediction is None:
            self._off = True
            self.entries.clear()
            self.trace.warn(f"latents are not corrected after forecasts: {reason}")
            return args, kwargs
        output, sample = call["model_output"], call["sample"]
        rows = len(sample)
        mask = computed * (rows // len(computed))
        now = Entry(index, u, mask, sample, prediction.clean(u, sample, output), sample, call)
        spares = spares_single_forecasts(scheduler)
        skipped = [
            row for row in range(rows) if not mask[row] and row in used and not (spares and self._alone(row, False))
        ]
        if skipped:
            now.clean = self._feed_back(prediction, now, skipped, used)
            output = _with_rows(output, prediction.output(u, sample, now.clean), skipped)
        if self.observe is not None:
            self.observe(prediction, self.entries, now)
        # Rows that were computed at the same steps are replayed together; a row never depends on its neighbours.
        due: dict[tuple[tuple[int, ...], float], list[int]] = {}
        for row in range(rows):
            ended = mask[row] and self.entries and not self.entries[-1].computed[row]
            if ended and not (spares and self._alone(row, True)) and (nodes := self._nodes(row, u)):
                due.setdefault((nodes, self.degree(row)), []).append(row)
        for (nodes, degree), picked in due.items():
            arrived = self._replay(scheduler, prediction, nodes, degree, picked, now)
            now.sample = _with_rows(now.sample, arrived, picked)
            gains = self._newest_gain(prediction, now, picked)
            moved = now.clean + gains * (now.sample.float() - sample.float())
            output = _with_rows(output, prediction.output(u, now.sample, moved), picked)
            now.hold(moved, [row for row in picked if self.theory(row)])
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
        """The clean pictures of a forecast step, moved to the latents that the solver really holds."""
        by_step = {entry.step: entry for entry in self.entries}
        clean = now.clean.clone()
        for row in rows:
            steps, weights = used[row]
            anchors = [by_step.get(step) for step in steps]
            if any(anchor is None for anchor in anchors):
                continue
            held = now.sample[row].float()
            output = prediction.output(now.u, held, clean[row])
            there, belongs = belonging(prediction, [a for a in anchors if a is not None], weights, row, now.u, output)
            gain = self._gain(prediction, now.u, row, len(steps))
            clean[row] = there + gain * (held - belongs)
        return clean

    def _gain(self, prediction: Prediction, u: float, row: int, nodes: int) -> torch.Tensor | float:
        """How far a forecast from `nodes` steps moves with the latents."""
        done = [entry for entry in reversed(self.entries) if entry.computed[row]]
        measured = None if self.theory(row) else self._measured(prediction, done, row, nodes)
        if measured is None:
            return prediction.gain(u)
        # What was known a computed step ago is tried on the newest: where it did not help there, it is not used.
        before = self._measured(prediction, done[1:], row, nodes)
        missing, away = self._misses(prediction, done, row, nodes)
        newest, largest = done[0].u, prediction.largest_gain(done[0].u)
        tried = prediction.gain(newest) if before is None else prediction.carried(before, done[1].u, newest)
        helped = (missing - tried * away).square().sum() < (missing - largest * away).square().sum()
        return torch.where(helped, prediction.carried(measured, newest, u), prediction.largest_gain(u))

    def _newest_gain(self, prediction: Prediction, now: Entry, rows: list[int]) -> torch.Tensor:
        """How far the output of the step that ends a run moves with the latents: measured at that very step.

        Shapes: (R, 1, ...), R rows; theory's in rows where nothing can be measured, and in those not asked for.
        """
        gains = torch.full((len(now.sample),), prediction.gain(now.u), device=now.sample.device)
        for row in rows:
            if self.theory(row):
                gains[row] = self._followed(prediction, now, row)
                continue
            done = [now, *(entry for entry in reversed(self.entries) if entry.computed[row])]
            measured = self._measured(prediction, done, row, LINE)
            gains[row] = gains[row] if measured is None else measured
        return gains.reshape(-1, *[1] * (now.sample.ndim - 1))

    def _followed(self, prediction: Prediction, now: Entry, row: int) -> torch.Tensor | float:
        """How far the clean picture of a row of `theory` follows: as far as a line through the two computed steps
        before proves that it does (see `_measured`, but by step), and at least LEAST_MOVE of theory, at most all."""
        largest, found = prediction.gain(now.u), self._newest(row, now.u, LINE)
        if len(found) < LINE:
            return largest
        nodes = [self.entries[i] for i in found]
        weights = lagrange_weights([float(n.step) for n in nodes], float(now.step))
        outputs = [prediction.output(n.u, n.seen[row], n.clean[row]) for n in nodes]
        there, belongs = belonging(prediction, nodes, weights, row, now.u, combine(outputs, weights))
        missing, away = now.clean[row] - there, now.seen[row].float() - belongs
        gain = (missing * away).sum() / away.square().sum().clamp_min(1e-30)
        return gain.clamp(LEAST_MOVE * largest, largest)

    def _measured(self, prediction: Prediction, done: list[Entry], row: int, nodes: int) -> torch.Tensor | None:
        """The gain at which a forecast from `nodes` steps would have met the newest computed one.

        Args:
            done: entries at which the row was computed, newest first.

        Returns: a number from 0 to the largest gain, left where the latents are, or None where too few steps were
            computed.
        """
        known = done[: nodes + 1]
        if len({entry.u for entry in known}) <= nodes:
            return None
        missing, away = self._misses(prediction, known, row, nodes)
        gain = (missing * away).sum() / (away * away).sum().clamp_min(1e-30)
        return gain.clamp(0.0, prediction.largest_gain(known[0].u))

    @staticmethod
    def _misses(prediction: Prediction, done: list[Entry], row: int, nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What a forecast of the newest of `done` from the `nodes` before misses, and how far off the latents were."""
        truth, before = done[0], done[1 : nodes + 1]
        weights = lagrange_weights([entry.u for entry in before], truth.u)
        outputs = [prediction.output(entry.u, entry.seen[row], entry.clean[row]) for entry in before]
        there, belongs = belonging(prediction, before, weights, row, truth.u, combine(outputs, weights))
        return truth.clean[row] - there, truth.seen[row].float() - belongs

    def _alone(self, row: int, computed: bool) -> bool:
        """Whether no two steps in a row were forecast in `row`, the current one, `computed` or not, among them."""
        done = [*(entry.computed[row] for entry in self.entries), computed]
        return all(a or b for a, b in pairwise(done))

    def _nodes(self, row: int, u: float) -> tuple[int, ...]:
        """The entries that a replay of `row` interpolates between, beside the step at `u` that ends its run."""
        return self._newest(row, u, self.degree(row))

    def _newest(self, row: int, u: float, most: float) -> tuple[int, ...]:
        """The newest entries at which `row` was computed, newest first, at noise levels that all differ, from `u` too.

        Args:
            most: the entries that are wanted; a part of one counts as one.
        """
        found: list[int] = []
        levels = {u}
        for i in range(len(self.entries) - 1, -1, -1):
            entry = self.entries[i]
            # Solvers with two stages a step visit a level twice.
            if entry.computed[row] and entry.u not in levels and len(found) < most:
                found.append(i)
                levels.add(entry.u)
        return tuple(found)

    def _replay(
        self,
        scheduler: Any,
        prediction: Prediction,
        before: tuple[int, ...],
        degree: float,
        rows: list[int],
        now: Entry,
    ) -> torch.Tensor:
        """Step again from the entry after the newest of `before`; the latents arrived at, of use in `rows`."""
        run = self.entries[before[0] + 1 :]
        nodes = [now, *(self.entries[i] for i in before)]
        again = snapshot(run[0].scheduler)
        state = run[0].sample
        for entry in run:
            weights = mixed_weights([n.u for n in nodes], entry.u, degree)
            belongs = combine([n.pair[0] for n in nodes], weights).float()
            clean = combine([n.pair[1] for n in nodes], weights)
            clean = clean + prediction.gain(entry.u) * (state.float() - belongs)
            output = _with_rows(entry.call["model_output"], prediction.output(entry.u, state, clean), rows)
            entry.sample = _with_rows(entry.sample, state, rows)
            entry.scheduler = snapshot(again)
            entry.call = {**entry.call, "model_output": output, "sample": entry.sample}
            state = again.step(**{**entry.call, "sample": state})[0]
        merge_state(scheduler, again, rows, len(state))
        return state


def spares_single_forecasts(scheduler: Any) -> bool:
    """Whether forecasts that all stand alone between computed steps are better left as they are: PNDM that starts by
    Runge-Kutta.

    Errors of successive ones come to cancel there, and what moves them or the latents after them costs 1.7 dB; longer
    runs gain by being corrected as elsewhere (measured, docs/solvers.md).
    """
    stages = getattr(getattr(scheduler, HELD, scheduler), "prk_timesteps", None)
    return stages is not None and len(stages) > 0


def belonging(
    prediction: Prediction, nodes: Sequence[Entry], weights: Sequence[float], row: int, u: float, output: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clean picture that a forecast gives at noise level `u`, and the latents it belongs to, both of one row.

    Args:
        nodes: the computed steps it is made from, with `weights`; the outputs there answer the latents that were seen,
            which a replay may have corrected since.
        output: the forecast of the denoiser's output. Shape: like a row of the latents.
    """
    seen = combine([n.seen[row] for n in nodes], list(weights)).float()
    there = prediction.clean(u, seen, output)
    if any(n.held is not None for n in nodes):
        there = there + combine([n.pair[1][row] - n.clean[row] for n in nodes], list(weights))
    return there, combine([n.pair[0][row] for n in nodes], list(weights)).float()


def mixed_weights(nodes: Sequence[float], at: float, degree: float) -> list[float]:
    """Weights of an interpolation at `at` of a degree that may lie between two whole numbers: those of both, mixed.

    Args:
        nodes: the newest first; the oldest is used by the higher degree alone.
    """
    highest = min(math.ceil(degree), len(nodes) - 1)
    low = min(int(degree), highest)
    below, above = (lagrange_weights(list(nodes[: d + 1]), at) for d in (low, highest))
    share = min(degree, highest) - low
    below = [*below, *([0.0] * (highest - low))]
    return [
        *((1.0 - share) * b + share * a for b, a in zip(below, above, strict=True)),
        *([0.0] * (len(nodes) - 1 - highest)),
    ]


def named_call(step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a scheduler's step by name."""
    call = dict(inspect.signature(step).bind(*args, **kwargs).arguments)
    extra = call.pop("kwargs", {})
    return {**call, **extra}


def _with_rows(old: torch.Tensor, new: torch.Tensor, rows: list[int]) -> torch.Tensor:
    result = old.clone()
    result[rows] = new[rows].to(old.dtype)
    return result


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


def merge_state(scheduler: Any, twin: Any, rows: list[int], batch: int) -> None:
    """Take the rows of every remembered tensor (earlier outputs, last sample) from `twin` into `scheduler`."""

    def merged(mine: Any, theirs: Any) -> Any:
        if (
            isinstance(mine, torch.Tensor)
            and isinstance(theirs, torch.Tensor)
            and mine.ndim > 1
            and mine.shape == theirs.shape
            and mine.shape[0] == batch
        ):
            return _with_rows(mine, theirs, rows)
        return mine

    for name, mine in list(scheduler.__dict__.items()):
        theirs = twin.__dict__.get(name)
        if name == HELD:
            merge_state(mine, theirs, rows, batch)
        elif isinstance(mine, list) and isinstance(theirs, list):
            scheduler.__dict__[name] = [merged(a, b) for a, b in zip(mine, theirs, strict=True)]
        else:
            scheduler.__dict__[name] = merged(mine, theirs)
