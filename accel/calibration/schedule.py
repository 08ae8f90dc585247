"""Finds the computed steps of `ScheduledTaylor` for a pipeline: layouts are tried on few prompts, the best on more, and
then single steps are moved while pictures get nearer.

What is judged is the picture: real runs with a few prompts and noises, held against the plain pipeline's, or against
the converged solution's. Every run is paid for out of a budget in plain runs of one prompt, by the blocks it computes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from ...errors import ConfigError, InputError, UnsupportedModelError
from ..handle import Acceleration
from ..levels import noise_levels
from ..methods import METHODS
from ..ranges import number, one_of, require
from .runs import caller, made, psnr

EARLY = (1.0, 1.2, 1.4, 1.8)
"""Layouts that are tried first: step N (k / K)^early."""

LAST = (1.0, 0.55)
"""Length of the last run of forecasts beside the others."""

KINDS: tuple[tuple[float | None, float | None], ...] = ((None, None), (2.0, 2.0), (1.0, 2.0), (0.0, 1.0))
"""Order and degree of the replay: measured online, or fixed."""

FEW, SOME = 2, 4
"""Prompts on which every layout, and the better ones, are tried."""

CONVERGED = 4
"""Times the steps that stand for the converged solution."""

Places = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A schedule: computed steps, order and degree (None: measured online)."""

    places: Places
    order: float | None
    replay: float | None

    @property
    def key(self) -> str:
        return f"{'-'.join(map(str, self.places))} {self.order} {self.replay}"


def calibrate(
    pipe: Any,
    prompts: Sequence[Any],
    *,
    speedup: float,
    reference: str,
    cost: float,
    resume: Any,
    progress: bool,
    seed: int,
    call: dict[str, Any],
) -> Any:
    """The schedule for `pipe`; see `ScheduledTaylor.calibrate`."""
    number("speedup", speedup, 1.0)
    require(speedup > 1, "nothing has to be calibrated to compute everything; give a speedup above 1")
    one_of("reference", reference, ("plain", "converged"))
    number("cost", cost, 1.0)
    bench = Bench(
        pipe, prompts, speedup, reference, cost, None if resume is None else Path(resume), progress, seed, call
    )
    with bench.bar:
        return bench.found()


class Bench:
    """One calibration under way.

    Attributes:
        spent: what the runs so far cost, in plain runs of one prompt.
    """

    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[Any],
        speedup: float,
        reference: str,
        cost: float,
        resume: Path | None,
        progress: bool,
        seed: int,
        call: dict[str, Any],
    ) -> None:
        self.pipe, self.speedup, self.cost, self.spent = pipe, speedup, cost, 0.0
        self.count = len(prompts)
        self._run = caller(pipe, prompts, call, seed)
        each = 1.0 + (CONVERGED if reference == "converged" else 0.0)
        if cost < (each + 1.0) * self.count:
            raise ConfigError(
                f"{self.count} prompts cost {each * self.count:g} plain runs before anything is tried; give a cost of "
                f"{(each + 1.0) * self.count:g} or more, or fewer prompts"
            )
        self._question = {
            "pipeline": type(pipe).__name__,
            "prompts": [str(prompt) for prompt in prompts],
            "speedup": speedup,
            "reference": reference if reference == "plain" else f"{CONVERGED} times the steps",
            "seed": seed,
            "call": {key: repr(value) for key, value in call.items()},
        }
        self._file, self._known = resume, self._remembered(resume)
        self.bar = tqdm(total=cost, disable=not progress, unit="run", desc="calibrating", leave=False)
        self._plain, self._peak = made(pipe, lambda: self._run(range(self.count)))
        self._pay(float(self.count))
        levels = noise_levels(pipe.scheduler)
        if levels is None:
            raise UnsupportedModelError("the pipeline's scheduler does not tell the noise levels of its steps")
        self.levels, self.total = levels[:-1], len(levels) - 1
        self.budget = max(1, round(self.total / speedup))
        if reference == "converged":
            self._plain = self._converged()

    def found(self) -> Any:
        """The schedule that keeps pictures best."""
        if self.budget >= self.total:
            return METHODS["scheduled_taylor"](speedup=self.speedup)  # pyright: ignore[reportCallIssue]
        few, some = range(min(FEW, self.count)), range(min(SOME, self.count))
        layouts = dict.fromkeys(laid(self.total, self.budget, early, last) for early in EARLY for last in LAST)
        tried = self._best([Candidate(places, None, None) for places in layouts], few, 2)
        tried = [replace(c, order=order, replay=degree) for c in tried for order, degree in KINDS]
        best = self._best(tried, few, 3)
        best = self._best(best, some, 1)[0]
        best = self._moved(best, some)
        levels = tuple(self.levels[place] for place in best.places)
        return METHODS["scheduled_taylor"](
            speedup=self.speedup,  # pyright: ignore[reportCallIssue]
            levels=levels,  # pyright: ignore[reportCallIssue]
            steps=self.total,  # pyright: ignore[reportCallIssue]
            order=best.order,  # pyright: ignore[reportCallIssue]
            replay=best.replay,  # pyright: ignore[reportCallIssue]
        )

    def _best(self, candidates: Sequence[Candidate], prompts: range, count: int) -> list[Candidate]:
        """The `count` candidates nearest to the reference on some prompts, as far as the cost allows asking."""
        scored = []
        for candidate in candidates:
            if scored and not self._affords(candidate, prompts):
                break
            scored.append((self.psnr(candidate, prompts), candidate))
        scored.sort(key=lambda pair: -pair[0])
        return [candidate for _, candidate in scored[:count]]

    def _moved(self, best: Candidate, prompts: range) -> Candidate:
        """`best` with single computed steps moved as long as pictures get nearer and the cost allows.

        What counts is the mean over all prompts, on which the move is confirmed; moves are looked for on some.
        """
        everyone = range(self.count)
        score, whole = self.psnr(best, prompts), self.psnr(best, everyone)
        while True:
            for other in self._neighbours(best):
                if not self._affords(other, prompts):
                    return best
                if (got := self.psnr(other, prompts)) <= score:
                    continue
                if len(everyone) > len(prompts):
                    if not self._affords(other, everyone):
                        return best
                    confirmed = self.psnr(other, everyone)
                    if confirmed <= whole:
                        continue
                    whole = confirmed
                best, score = other, got
                break
            else:
                return best

    def _neighbours(self, candidate: Candidate) -> list[Candidate]:
        """Schedules with one computed step, or all from one on, a step earlier or later; the middle ones first."""
        places, found = candidate.places, []
        order = sorted(range(1, len(places)), key=lambda k: abs(k - len(places) / 2))
        for k in order:
            for by in (-1, 1):
                for shifted in (
                    (*places[:k], places[k] + by, *places[k + 1 :]),
                    (*places[:k], *(p + by for p in places[k:])),
                ):
                    if list(shifted) == sorted(set(shifted)) and shifted[-1] < self.total:
                        found.append(replace(candidate, places=shifted))
        return list(dict.fromkeys(found))

    def psnr(self, candidate: Candidate, prompts: range) -> float:
        """Mean PSNR in dB of some prompts under a candidate; what was measured before is not measured again."""
        known = self._known.setdefault(candidate.key, {})
        missing = [i for i in prompts if str(i) not in known]
        if missing:
            method = METHODS["scheduled_taylor"](
                speedup=self.total / self.budget,  # pyright: ignore[reportCallIssue]
                levels=tuple(self.levels[place] for place in candidate.places),  # pyright: ignore[reportCallIssue]
                order=candidate.order,  # pyright: ignore[reportCallIssue]
                replay=candidate.replay,  # pyright: ignore[reportCallIssue]
            )
            with Acceleration(self.pipe, [method]):
                pictures, _ = made(self.pipe, lambda: self._run(missing))
            for i, value in zip(missing, psnr(pictures, self._plain[missing], self._peak[missing]), strict=True):
                known[str(i)] = value
            self._pay(len(missing) * self.budget / self.total)
            self._keep()
        return fmean(known[str(i)] for i in prompts)

    def _converged(self) -> torch.Tensor:
        """The pictures of many more steps of a second-order solver."""
        steps = CONVERGED * self.total
        with Acceleration(self.pipe, [METHODS["solver"]()]):
            pictures, _ = made(self.pipe, lambda: self._run(range(self.count), num_inference_steps=steps))
        self._pay(float(CONVERGED * self.count))
        return pictures

    def _affords(self, candidate: Candidate, prompts: range) -> bool:
        missing = sum(str(i) not in self._known.get(candidate.key, {}) for i in prompts)
        return self.spent + missing * self.budget / self.total <= self.cost

    def _pay(self, runs: float) -> None:
        self.spent += runs
        self.bar.update(runs)

    def _remembered(self, file: Path | None) -> dict[str, dict[str, float]]:
        if file is None or not file.exists():
            return {}
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            question, known = held["question"], held["known"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read the calibration {file}; remove it or give another file") from error
        if question != self._question:
            raise InputError(f"{file} belongs to another calibration; give another file")
        return known

    def _keep(self) -> None:
        if self._file is None:
            return
        part = self._file.with_name(f".{self._file.name}.part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"question": self._question, "known": self._known}), encoding="utf-8")
            part.replace(self._file)
        except OSError as error:
            raise InputError(f"cannot write the calibration {self._file}: {error.strerror}") from error


def laid(total: int, count: int, early: float, last: float) -> Places:
    """`count` of `total` steps at N (k / K)^early, the last run of forecasts `last` times as long as the others."""
    end = total * count / (count - 1 + last)
    places: list[int] = []
    for k in range(count):
        least = places[-1] + 1 if places else 0
        places.append(min(max(round(end * (k / count) ** early), least), total - (count - k)))
    return tuple(places)
