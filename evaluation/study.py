"""Runs contenders over requests, measures each against the references, and keeps every batch as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from ..errors import ConfigError
from .cells import SPEEDUPS
from .contender import Contender, Request
from .features import Extractor
from .memory import Memory, peak_memory
from .pareto import nearest_of_each
from .records import Records, fingerprint
from .samples import BatchMaker, mark_of, run_stage
from .stages import Parts, stages_of
from .timing import Pair, Span, time_pairs
from .workers import Alone, Crew

Check = Callable[[list[np.ndarray], list[Any]], list[dict[str, float]]]


@dataclass(kw_only=True, slots=True)
class Row:
    """What is known about one contender after a run."""

    contender: Contender
    samples: list[dict[str, Any]] = field(default_factory=list)
    """One entry a request: index, blocks, work, metrics {reference: {metric: value or None}}, checks, features (text),
    trace."""

    pairs: list[Pair] = field(default_factory=list)
    memory: Memory | None = None
    """What one call at batch 1 takes; None for who was not timed."""

    stages: dict[str, float] | None = None
    """Seconds of one call at batch 1 by stage; None for who was not timed."""

    error: str | None = None
    """Why there is nothing, for a contender that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """The same requests through every contender, compared with two references.

    Args:
        contenders: all of them, the references among them.
        requests: what each is asked for, index 0 upward.
        folder: where results are kept; the same study in the same folder continues where it stopped.

    Raises: ConfigError where names repeat, a reference is missing, or there is no request.
    """

    contenders: Sequence[Contender]
    requests: Sequence[Request]
    folder: Path

    plain: str = "plain"
    """Name of the reference that runs the same steps with nothing skipped; blocks and times are relative to it."""

    converged: str | None = "converged"
    """Name of the reference near the exact solution, or None."""

    check: Check | None = None
    """Reads generated media and tells how well each follows its prompt: {"colour": 0..1, ...} a sample."""

    features: Extractor | None = None
    """Media -> features [R, D] that distances of whole sets are taken over, such as a reader's; None: no such."""

    batch: int = 8
    """Requests run at once; a contender may ask for fewer. Raising it costs memory."""

    timing_requests: int = 0
    """Requests timed at batch 1, paired with the plain pipeline; 0 leaves times out."""

    timing_rounds: int = 1
    """How often the timed requests are gone over."""

    timed: Literal["shown", "every"] = "shown"
    """Who is timed, and has its peak memory measured: of each curve the contenders nearest to `target` and to each of
    `speedups`, and those asked for by name; or every one."""

    target: float = 2.5
    """The speed-up in computed work at which curves are shown."""

    speedups: Sequence[float] = SPEEDUPS
    """Where curves are compared: times less work, and times less time."""

    device: str = "cpu"
    """Where the contenders run, for the clock."""

    parts: Parts = field(default_factory=dict)
    """What of a call is timed apart, such as {"text": (pipe, "encode_prompt")}; the rest is denoising."""

    identity: dict[str, Any] = field(default_factory=dict)
    """Plain data that tells this pipeline from others; kept results of another identity are made again."""

    def __post_init__(self) -> None:
        names = [c.name for c in self.contenders]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ConfigError(f"contender names must differ; given twice: {', '.join(twice)}")
        if not self.requests:
            raise ConfigError("a study needs at least one request")
        if self.batch < 1 or self.timing_requests < 0 or self.timing_rounds < 1:
            raise ConfigError("batch and timing rounds must be at least 1, timing requests at least 0")
        for reference in self.references:
            if reference not in names:
                raise ConfigError(f"the reference '{reference}' is not among the contenders ({', '.join(names)})")

    @property
    def references(self) -> list[str]:
        return [self.plain] + ([self.converged] if self.converged else [])

    def ordered(self) -> list[Contender]:
        """The converged reference, the plain one, then the others: each is compared with references before it."""
        by_name = {c.name: c for c in self.contenders}
        first = [by_name[name] for name in reversed(self.references)]
        return first + [c for c in self.contenders if c.name not in self.references]

    def stages(self) -> list[list[Contender]]:
        """`ordered` in groups, none compared with a member of its own: a group can be run in any order."""
        ordered, first = self.ordered(), len(self.references)
        return [*([c] for c in ordered[:first]), ordered[first:]]

    def compared_with(self, contender: str) -> list[str]:
        """The references that `contender` is measured against."""
        if contender == self.converged:
            return []
        return [name for name in self.references if name != contender]


def run_study(study: Study, *, crew: Crew | None = None, progress: bool = True) -> list[Row]:
    """Run what is not kept yet and return one row a contender, in the order of `study.contenders`.

    A contender other than a reference that raises is returned with its error: a comparison that drops what failed
    flatters what is left. The error of a reference is raised, since nothing can be said without it.

    Args:
        crew: who makes the batches, each with a `BatchMaker` of this study; None: this process. Only the leading one
            returns rows, and takes times, when it is alone.
    """
    records = Records(study.folder)
    crew = crew or Alone(BatchMaker(study))
    ordered = study.ordered()
    by_name = {c.name: Row(contender=c) for c in ordered}
    rows = list(by_name.values())
    chosen = list(study.requests[: study.timing_requests])
    bar = tqdm(
        total=len(ordered) * len(study.requests),
        unit="sample",
        desc="compare",
        disable=not (progress and crew.leads),
        dynamic_ncols=True,
    )
    with bar:
        with closing(crew):
            for stage in study.stages():
                run_stage(study, records, crew, [by_name[c.name] for c in stage], bar)
        if not crew.leads:
            return []
        timed = rows_to_time(study, by_name) if study.timing_requests else []
        bar.total += len(timed)
        plain, warm = by_name[study.plain], set()
        for row in timed:
            bar.set_postfix_str(f"timing {row.contender.name}")
            row.pairs = run_timing(study, records, plain.contender, row.contender, chosen, warm)
            bar.update(1)
        for row in [plain, *timed] if timed else []:
            bar.set_postfix_str(f"memory of {row.contender.name}")
            row.memory = run_memory(study, records, row.contender, chosen, warm)
        for row in [plain, *timed] if timed and study.parts else []:
            bar.set_postfix_str(f"stages of {row.contender.name}")
            row.stages = run_stages(study, records, row.contender, chosen, warm)
        for row in rows if study.timing_requests else []:  # what was measured before costs nothing more
            row.pairs = row.pairs or kept_timing(study, records, row.contender, chosen) or []
            row.memory = row.memory or kept_memory(study, records, row.contender, chosen)
    return [by_name[c.name] for c in study.contenders]


def rows_to_time(study: Study, by_name: dict[str, Row]) -> list[Row]:
    """The rows whose contenders are timed, as `study.timed` says; never a reference, never one that failed."""
    plain = sum(sample["work"] for sample in by_name[study.plain].samples)
    work = {
        name: sum(sample["work"] for sample in row.samples)
        for name, row in by_name.items()
        if name not in study.references and row.error is None
    }
    if study.timed == "every":
        return [by_name[name] for name in work]
    speedups = {name: plain / spent for name, spent in work.items() if spent > 0}
    curves = {name: by_name[name].contender.curve for name in speedups}
    near = {name for at in (study.target, *study.speedups) for name in nearest_of_each(speedups, curves, at)}
    return [row for name, row in by_name.items() if name in work and (name in near or row.contender.shown)]


def timing_mark(study: Study, contender: Contender, requests: list[Request]) -> str:
    """Fingerprint of a contender's times."""
    return fingerprint(mark_of(study, contender, requests), study.timing_rounds, study.device)


def kept_timing(study: Study, records: Records, contender: Contender, requests: list[Request]) -> list[Pair] | None:
    """Paired times that an earlier run measured, or None."""
    kept = records.load(records.cell(contender.name) / "timing.json", timing_mark(study, contender, requests))
    return None if kept is None else [Pair(plain=Span(**p["plain"]), contender=Span(**p["contender"])) for p in kept]


def run_timing(
    study: Study,
    records: Records,
    plain: Contender,
    contender: Contender,
    requests: list[Request],
    warm: set[str],
) -> list[Pair]:
    """Paired times of one contender, from disk where they are kept.

    Args:
        warm: names of those that were called in this process already; grows.
    """
    kept = kept_timing(study, records, contender, requests)
    if kept is not None:
        return kept
    for one in (plain, contender):
        warm_up(one, requests, warm)
    pairs = time_pairs(
        plain.timed or plain.generate,
        contender.timed or contender.generate,
        requests,
        device=study.device,
        rounds=study.timing_rounds,
        warm=True,
    )
    path = records.cell(contender.name) / "timing.json"
    records.save(path, timing_mark(study, contender, requests), [p.as_dict() for p in pairs])
    return pairs


def warm_up(contender: Contender, requests: list[Request], warm: set[str]) -> None:
    """One call at batch 1 that nobody measures, unless there was one: first calls allocate, load and compile."""
    if contender.name not in warm:
        (contender.timed or contender.generate)([requests[0]])
        warm.add(contender.name)


def memory_mark(study: Study, contender: Contender, requests: list[Request]) -> str:
    """Fingerprint of a contender's peak memory."""
    return fingerprint(mark_of(study, contender, requests[:1]), study.device)


def kept_memory(study: Study, records: Records, contender: Contender, requests: list[Request]) -> Memory | None:
    """Peak memory that an earlier run measured, or None."""
    kept = records.load(records.cell(contender.name) / "memory.json", memory_mark(study, contender, requests))
    return None if kept is None else Memory(**kept)


def run_stages(
    study: Study, records: Records, contender: Contender, requests: list[Request], warm: set[str]
) -> dict[str, float] | None:
    """Seconds of one call of a contender at batch 1 by stage, from disk where they are kept."""
    path = records.cell(contender.name) / "stages.json"
    mark = fingerprint(mark_of(study, contender, requests[:1]), study.device, sorted(study.parts))
    kept = records.load(path, mark)
    if kept is None:
        warm_up(contender, requests, warm)
        run = contender.timed or contender.generate
        kept = {"stages": stages_of(lambda: run([requests[0]]), study.parts, study.device)}
        records.save(path, mark, kept)
    return kept["stages"]


def run_memory(study: Study, records: Records, contender: Contender, requests: list[Request], warm: set[str]) -> Memory:
    """Peak memory of one call of a contender at batch 1, from disk where it is kept."""
    kept = kept_memory(study, records, contender, requests)
    if kept is None:
        warm_up(contender, requests, warm)
        kept = peak_memory(lambda: (contender.timed or contender.generate)([requests[0]]), study.device)
        records.save(
            records.cell(contender.name) / "memory.json", memory_mark(study, contender, requests), asdict(kept)
        )
    return kept
