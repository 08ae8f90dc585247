"""Correction of the latents after a run of forecasts, by replaying the solver with what is known by then.

While steps are skipped the solver integrates *extrapolated* outputs. When the next step is computed, its output lies at
the far end of the run, so the skipped outputs can be *interpolated*, which is several times closer to the truth. The
solver is then stepped again over the run, from where the run began, with the interpolated outputs in the place of the
extrapolated ones; the latents it arrives at replace the current ones before the computed step is taken. Costs no
denoiser call: only scheduler steps on latents. Works for any deterministic scheduler, because it is its own `step` that
is run again on a copy of its state.

This is the corrector of a predictor-corrector method (Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I,
section III.1) applied over a run of skipped steps.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..kernels.forecast import combine, lagrange_weights
from .clock import is_stochastic
from .trace import Trace

KEPT_STEPS = 40
"""Steps remembered at most; latents are small beside a block's tokens."""


@dataclass(slots=True)
class Entry:
    """One scheduler step as it was taken."""

    u: float
    computed: list[bool]
    output: torch.Tensor
    sample: torch.Tensor
    call: dict[str, Any]
    scheduler: Any
    """A copy of the scheduler as it stood before the step."""
    result: torch.Tensor | None = None


class Replay:
    """Remembers the scheduler's steps of one run and corrects the latents at the end of each run of forecasts.

    Args:
        trace: told, once, why nothing is corrected where that is so.
        order: degree of the interpolation; its nodes are the computed step that ends the run and those before it.
    """

    def __init__(self, trace: Trace, order: int = 2) -> None:
        self.trace, self.order = trace, order
        self.entries: list[Entry] = []
        self._off = False

    def clear(self) -> None:
        self.entries.clear()
        self._off = False

    def correct(
        self,
        scheduler: Any,
        step: Callable[..., Any],
        index: int,
        levels: list[float],
        computed: list[bool],
        tie: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for the scheduler's step that is about to be taken, with corrected latents where due."""
        if self._off:
            return args, kwargs
        bound = inspect.signature(step).bind(*args, **kwargs)
        call = dict(bound.arguments)
        extra = call.pop("kwargs", {})
        call.update(extra)
        reason = self._unfit(scheduler, call, computed, tie)
        if reason:
            self._off = True
            self.entries.clear()
            self.trace.warn(f"latents are not corrected after forecasts: {reason}")
            return args, kwargs
        first = getattr(scheduler, "_begin_index", None) or 0
        output, sample = call["model_output"], call["sample"]
        rows = len(sample)
        mask = computed * (rows // len(computed))
        now = Entry(levels[min(first + index, len(levels) - 1)], mask, output, sample, call, None)
        due: dict[int, list[int]] = {}
        for row in range(rows):
            if mask[row] and self.entries and not self.entries[-1].computed[row]:
                begin = max((i for i, e in enumerate(self.entries) if e.computed[row]), default=-1)
                if begin >= 0:
                    due.setdefault(begin, []).append(row)
        if due:
            sample = sample.clone()
            for begin, picked in due.items():
                self._replay(scheduler, begin, picked, now, sample)
            now.sample = call["sample"] = sample
        now.scheduler = snapshot(scheduler)
        self.entries.append(now)
        del self.entries[:-KEPT_STEPS]
        return (), call

    def remember_result(self, result: Any) -> None:
        """Note what the step that was just taken returned, to see whether the pipeline passes it on as it is."""
        if self.entries and self.entries[-1].result is None:
            self.entries[-1].result = result[0]

    def _unfit(self, scheduler: Any, call: dict[str, Any], computed: list[bool], tie: int) -> str:
        output, sample = call.get("model_output"), call.get("sample")
        if not isinstance(output, torch.Tensor) or not isinstance(sample, torch.Tensor):
            return f"{type(scheduler).__name__}.step does not take model_output and sample"
        if is_stochastic(scheduler) or call.get("eta"):
            return "the solver adds noise in its steps"
        if output.shape[0] != sample.shape[0] or len(sample) not in (len(computed), tie * len(computed)):
            return "the scheduler steps another batch than the denoiser"
        if self.entries:
            passed = self.entries[-1].result
            if passed is None or not (passed is sample or _same(passed, sample)):
                return "the pipeline changes the latents between steps"
        return ""

    def _replay(self, scheduler: Any, begin: int, rows: list[int], now: Entry, sample: torch.Tensor) -> None:
        """Step again from the entry after `begin`, and write the rows' new latents into `sample`."""
        run = self.entries[begin + 1 :]
        before = [e for e in self.entries[: begin + 1] if all(e.computed[row] for row in rows)][-self.order :]
        nodes = [*before, now]
        again = snapshot(run[0].scheduler)
        state = run[0].sample
        for entry in run:
            weights = lagrange_weights([n.u for n in nodes], entry.u)
            output = entry.output.clone()
            output[rows] = combine([n.output[rows] for n in nodes], weights).to(output.dtype)
            entry.output = output
            entry.sample = _with_rows(entry.sample, state, rows)
            entry.scheduler = snapshot(again)
            state = again.step(**{**entry.call, "model_output": output, "sample": state})[0]
        sample[rows] = state[rows].to(sample.dtype)
        merge_state(scheduler, again, rows, len(sample))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape == b.shape:
        return torch.equal(a.to(b.dtype), b)
    # Guidance batched in one tensor: the pipeline keeps one half and doubles it again.
    return False


def _with_rows(old: torch.Tensor, new: torch.Tensor, rows: list[int]) -> torch.Tensor:
    result = old.clone()
    result[rows] = new[rows].to(old.dtype)
    return result


def snapshot(scheduler: Any) -> Any:
    """A copy of a scheduler that can be stepped without moving the original."""
    twin = copy.copy(scheduler)
    for name in ("step", "set_timesteps"):
        twin.__dict__.pop(name, None)
    for name, value in twin.__dict__.items():
        if isinstance(value, list):
            twin.__dict__[name] = list(value)
    return twin


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
        if isinstance(mine, list) and isinstance(theirs, list):
            scheduler.__dict__[name] = [merged(a, b) for a, b in zip(mine, theirs, strict=True)]
        else:
            scheduler.__dict__[name] = merged(mine, theirs)
