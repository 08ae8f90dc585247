"""Finds the densities of sparse attention for a pipeline: errors are measured, plans made of them, runs decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

from ...errors import ConfigError
from ..apply import accelerate
from ..densities import Densities
from ..methods import METHODS
from ..ranges import number, require, whole
from .attention_costs import SparseProbe, at_looks
from .attention_plan import AttentionTable, Reading, one_range, plan, whole_cost
from .runs import caller, made, psnr

Sparse = Any
"""An `AdaSpa`, which calls this file and so is asked for by its name."""

READINGS = {"dense": (0.2, 0.3), "apart": (0.5,)}
"""What of a reading is tried in real runs, one after the other; the best is kept."""

LOST, FALLS, NEAR = 0.01, 0.08, 0.02
"""One recall for everything, tried beside the plans: the share of the mass that is left out at first, about how much
less attention is left out for each factor of e less of it, and how far off what was asked for that may end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionCalibration:
    """How densities are looked for. Deterministic: the same pipeline, prompts and settings give the same schedule.

    Raises: ConfigError for a setting out of its range.
    """

    looks: int = 4
    """Steps at which errors are measured, and ranges of noise levels that densities are told apart in, 1 or more. Each
    costs about half as many calls of the denoiser as it has layers."""

    trials: int = 6
    """Real runs in which ways to read the measured errors are compared, and one recall for everything with them, 0 or
    more; one for every range of noise levels is made besides, which tells what an error there costs the picture."""

    block: int | tuple[int, int] = (128, 64)
    """Tokens of a block of queries and of keys, as of `AdaSpa`."""

    min_tokens: int = 1024
    """Shorter attention is left alone, 1 or more."""

    seed: int = 0
    """Of the first prompt's noise; each later prompt has the next."""

    call: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline's call, such as num_inference_steps, height, guidance_scale."""

    def __post_init__(self) -> None:
        for name, low in (("looks", 1), ("trials", 0), ("min_tokens", 1)):
            whole(name, getattr(self, name), low)

    def bench(self, pipe: Any, prompts: Sequence[Any] | Callable[[], object]) -> CalibratedAttention:
        """What is measured once, for schedules of several savings.

        Args:
            prompts: as the pipeline takes them, or a function that calls it.
        """
        if callable(prompts):
            run = prompts
        else:
            run = partial(caller(pipe, prompts, dict(self.call), self.seed), range(len(prompts)))
        plain, peak = made(pipe, run)
        steps = len(pipe.scheduler.timesteps)
        looks = min(self.looks, steps)
        settings: Any = METHODS["adaspa"](
            density=0.25,  # pyright: ignore[reportCallIssue]
            block=self.block,  # pyright: ignore[reportCallIssue]
            min_tokens=self.min_tokens,  # pyright: ignore[reportCallIssue]
        )
        probe = SparseProbe(pipe, settings, list(at_looks(steps, looks)))
        seen = probe.run(run)
        if len(seen) != looks or len(probe.levels) != steps:
            raise ConfigError(
                f"{len(seen)} of {looks} looks were taken in a run of {len(probe.levels)} steps: calibrate with one "
                "run of the whole pipeline, from the first step on"
            )
        table = AttentionTable(levels=probe.levels, looks=tuple(seen), lost=(1.0,) * looks)
        return CalibratedAttention(self, pipe, run, table, plain, peak)


class CalibratedAttention:
    """The measured errors of one pipeline's attention, and real runs to hold schedules against.

    Attributes:
        table: the errors.
        runs: how many real runs were made so far.
        tried: of every method that was run, PSNR in dB and the share of all attention that it left out.
    """

    def __init__(
        self,
        settings: AttentionCalibration,
        pipe: Any,
        run: Callable[[], object],
        table: AttentionTable,
        plain: Any,
        peak: Any,
    ) -> None:
        self.settings, self.table, self.runs = settings, table, 0
        self._pipe, self._run, self._plain, self._peak = pipe, run, plain, peak
        self.tried: dict[Sparse, tuple[float, float]] = {}
        self.alone = tuple(map(self._alone, range(len(table.looks))))
        """PSNR of real runs in which one range of noise levels alone is sparse, by range."""
        self.table = replace(table, lost=tuple(map(self._lost, range(len(table.looks)))))

    def _alone(self, at: int) -> float:
        ranges, share, count = one_range(self.table, at)
        return self.psnr(self.method(ranges, share)) if count else math.inf

    def _lost(self, at: int) -> float:
        """What an error of the denoiser's output costs the picture: how far it is carried no single step can tell."""
        first, last = self.table.bins[at]
        _, _, count = one_range(self.table, at)
        if not count:
            return 1.0
        squared = 10.0 ** (-self.alone[at] / 10.0)
        return squared / max(whole_cost(self.table, at), 1e-30) * ((last - first + 1) / count) ** 2

    def saving(self, saves: float) -> Sparse:
        """What costs the picture least where the share `saves` of all attention is left out: densities by head and
        noise level, or one recall for all of them where real runs find that better.

        Raises: ConfigError where nothing saves as much.
        """
        number("saves", saves, 0.0, 1.0)
        require(0 < saves < 1, f"saves must be above 0 and below 1, not {saves!r}")
        reading = Reading()
        ranges = plan(self.table, saves, reading)
        if ranges is None:
            raise ConfigError(
                f"with a tenth of the steps dense and a search, no density saves {saves:.0%} of the attention in "
                f"{len(self.table.levels)} steps; ask for less, or take more steps"
            )
        best, left = self.method(ranges, reading.dense), self.settings.trials
        got = self.psnr(best) if left else 0.0
        for name, values in READINGS.items():
            for value in values:
                other = replace(reading, **{name: value})
                ranges = plan(self.table, saves, other)
                if left <= 0 or ranges is None:
                    continue
                method = self.method(ranges, other.dense)
                left -= method not in self.tried
                if (tried := self.psnr(method)) > got:
                    best, got, reading = method, tried, other
        alike = self._alike(saves, reading.dense, left)
        return alike if alike is not None and self.psnr(alike) > got else best

    def _alike(self, saves: float, dense: float, runs: int) -> Sparse | None:
        """One recall for everything that leaves out as much; None where so many runs find none."""
        lost, falls, before = math.log(LOST), FALLS, None
        for _ in range(runs):
            method = self.method((), dense, recall=1.0 - math.exp(lost))
            saved = self.left_out(method)
            if abs(saved - saves) <= NEAR:
                return method
            if before is not None and lost != before[0]:
                falls = max((saved - before[1]) / (lost - before[0]), FALLS / 4)
            before = lost, saved
            lost = min(lost + (saves - saved) / falls, math.log(0.5))
        return None

    def psnr(self, method: Sparse) -> float:
        """PSNR in dB of what is made under a method towards what is made plainly, on average over the prompts."""
        return self._ran(method)[0]

    def left_out(self, method: Sparse) -> float:
        """Share of all attention that a run under a method leaves out, its search counted."""
        return self._ran(method)[1]

    def _ran(self, method: Sparse) -> tuple[float, float]:
        if method not in self.tried:
            with accelerate(self._pipe, method) as run:
                pictures, _ = made(self._pipe, self._run)
            self.runs += 1
            record: Any = run.trace.attention
            work = record.totals()["work"]
            self.tried[method] = fmean(psnr(pictures, self._plain, self._peak)), 0.0 if work is None else 1.0 - work
        return self.tried[method]

    def method(self, ranges: Sequence[Densities], dense: float, recall: float | None = None) -> Sparse:
        """The settings that have these densities, or without any this recall, after a share `dense` of the steps."""
        return METHODS["adaspa"](
            schedule="/".join(map(str, ranges)),  # pyright: ignore[reportCallIssue]
            recall=recall,  # pyright: ignore[reportCallIssue]
            searches=(dense,),  # pyright: ignore[reportCallIssue]
            block=self.settings.block,  # pyright: ignore[reportCallIssue]
            min_tokens=self.settings.min_tokens,  # pyright: ignore[reportCallIssue]
            slack=0.0,  # pyright: ignore[reportCallIssue]
            min_gain=0.0,  # pyright: ignore[reportCallIssue]
        )
