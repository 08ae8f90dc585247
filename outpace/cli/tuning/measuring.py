"""What `outpace tune` measures of a candidate, kept on disk as it comes, so that a tuning can be continued."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outpace.errors import InputError, OutpaceError
from outpace.evaluation import METRICS, Study
from outpace.evaluation.records import Records, fingerprint
from outpace.evaluation.samples import mark_of, run_contender
from outpace.evaluation.timing import time_pairs
from outpace.evaluation.tune import Candidate, Failure, Scores, Target

if TYPE_CHECKING:
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Contender, Request

REFUSED = (OutpaceError, ValueError, TypeError, IndexError, RuntimeError)
"""What diffusers' schedulers and pipelines raise at settings they cannot take; an error of the kind drops one
candidate, which is reported, and not the tuning."""


@dataclass(kw_only=True, slots=True)
class Measuring:
    """Measures candidates against the plain pipeline at the same requests."""

    bench: Bench
    plain: Contender
    folder: Path
    target: Target
    batch: int
    identity: dict[str, Any]
    records: Records = field(init=False)
    _ahead: float = field(init=False, default=0.0)
    """Seconds that what was measured in an earlier run took then, less what reading it takes now."""

    def __post_init__(self) -> None:
        self.records = Records(self.folder)

    def __call__(self, candidate: Candidate, requests: Sequence[Request]) -> list[Scores]:
        """One entry a request: every metric to the plain pipeline, "blocks", and "time" where the target bounds it.

        Raises: Failure where the candidate cannot run; InputError where the target cannot be measured here.
        """
        contender = candidate.payload[0]
        study = self.study(contender, requests)
        began, path = time.monotonic(), self._bill(contender, requests)
        mark = fingerprint(mark_of(study, contender, requests), "seconds", self.target.names)
        paid = self.records.load(path, mark)
        failure: Failure | None = None
        scores: list[Scores] = []
        try:
            scores = self._measure(candidate, study, requests)
        except Failure as error:
            failure = error
        took = time.monotonic() - began
        if isinstance(paid, (int, float)):
            self._ahead += max(0.0, paid - took)  # it was measured before, and its time counts now as it did then
        else:
            self.records.save(path, mark, took)
        if failure is not None:
            raise failure
        return scores

    def clock(self) -> float:
        """Seconds, those included that measurements which are kept once took: a budget is kept over several runs."""
        return time.monotonic() + self._ahead

    def _bill(self, contender: Contender, requests: Sequence[Request]) -> Path:
        return self.records.cell(contender.name) / f"seconds-{requests[0].index:04d}-{requests[-1].index:04d}.json"

    def _measure(self, candidate: Candidate, study: Study, requests: Sequence[Request]) -> list[Scores]:
        contender = candidate.payload[0]
        base = run_contender(study, self.records, self.plain, _ignore)
        try:
            made = run_contender(study, self.records, contender, _ignore)
            times = self.times(study, contender, requests) if "time" in self.target.names else None
        except REFUSED as error:
            raise Failure(f"{type(error).__name__}: {error}") from error
        scores: list[Scores] = []
        for place, (sample, plain) in enumerate(zip(made, base, strict=True)):
            entry: dict[str, float | None] = dict(sample["metrics"][self.plain.name])
            entry |= {name: value for name, value in (sample["checks"] or {}).items() if name in METRICS}
            entry["blocks"] = sample["work"] / plain["work"]
            if "speedup" in self.target.names:
                entry["speedup"] = plain["work"] / sample["work"] if sample["work"] else None
            if times is not None:
                entry["time"] = times[place]
            scores.append(entry)
        self.check_measured(scores[0])
        return scores

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Plain data that `make` gives, kept under a name; what it cost counts again where it is only read."""
        path, mark = self.folder / f"{name}.json", fingerprint(self.identity, name)
        if (held := self.records.load(path, mark)) is not None:
            self._ahead += held["seconds"]
            return held["made"]
        began = time.monotonic()
        made = make()
        self.records.save(path, mark, {"made": made, "seconds": time.monotonic() - began})
        return made

    def again(self) -> Contender:
        """The plain pipeline as a contender against itself: what a first look at time and metrics is taken of."""
        return replace(self.plain, name="plain-again")

    def study(self, contender: Contender, requests: Sequence[Request]) -> Study:
        return Study(
            contenders=[self.plain, contender],
            requests=requests,
            folder=self.folder,
            converged=None,
            batch=self.batch,
            device=self.bench.loaded.pipe.device.type,
            identity=self.identity,
        )

    def times(self, study: Study, contender: Contender, requests: Sequence[Request]) -> list[float]:
        """Time of each request at batch 1 as a share of the plain pipeline's, the two taking turns."""
        first, last = requests[0].index, requests[-1].index
        path = self.records.cell(contender.name) / f"timing-{first:04d}-{last:04d}.json"
        mark = fingerprint(mark_of(study, contender, requests), "share", study.device)
        kept = self.records.load(path, mark)
        if kept is None:
            pairs = time_pairs(
                self.plain.run_timed,
                contender.run_timed,
                [[request] for request in requests],
                device=study.device,
            )
            kept = [pair.contender.wall / pair.plain.wall for pair in pairs]
            self.records.save(path, mark, kept)
        return kept

    def share_of_time(self, candidate: Candidate, requests: Sequence[Request]) -> list[float]:
        """Time of `candidate` on each of `requests`, as a share of the plain pipeline's."""
        contender = candidate.payload[0]
        return self.times(self.study(contender, requests), contender, requests)

    def check_measured(self, entry: Scores) -> None:
        """Raises: InputError where a metric of the target says nothing about what this pipeline makes."""
        for name in self.target.names:
            if name not in entry and (missing := METRICS[name].missing()):
                raise InputError(f"--target {name}: cannot be measured on this machine: {missing}")
            if name not in entry:
                why = (
                    "has no latents to compare" if METRICS[name].of == "latents" else "makes pictures too small for it"
                )
                raise InputError(f"--target {name}: cannot be measured here, the pipeline {why}; name another metric")


def _ignore(count: int) -> None:
    """Progress is told a candidate at a time."""
