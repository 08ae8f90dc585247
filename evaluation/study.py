"""Runs contenders over requests, measures each against the references, and keeps every batch as it comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from ..errors import ConfigError, MeasurementError
from .attention import block_work, digest
from .contender import Contender, Request, Result
from .features import Extractor, extractors, read_features
from .metrics import METRICS, Metric
from .pareto import nearest_of_each
from .records import Records, fingerprint
from .timing import Pair, Span, time_pairs

Check = Callable[[list[np.ndarray], list[Any]], list[dict[str, float]]]


@dataclass(kw_only=True, slots=True)
class Row:
    """What is known about one contender after a run."""

    contender: Contender
    samples: list[dict[str, Any]] = field(default_factory=list)
    """One entry a request: index, blocks, work, metrics {reference: {metric: value or None}}, checks, features (text),
    trace."""

    pairs: list[Pair] = field(default_factory=list)
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
    """Who is timed: of each curve the contender nearest to `target`, which reports show in pictures, and those asked
    for by name; or every one."""

    target: float = 2.5
    """The speed-up in computed work at which curves are shown."""

    device: str = "cpu"
    """Where the contenders run, for the clock."""

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

    def compared_with(self, contender: str) -> list[str]:
        """The references that `contender` is measured against."""
        if contender == self.converged:
            return []
        return [name for name in self.references if name != contender]


def batches(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """Fixed slices: a study that is continued makes the very batches it would have made in one go."""
    return [list(requests[i : i + size]) for i in range(0, len(requests), size)]


def run_study(study: Study, *, progress: bool = True) -> list[Row]:
    """Run what is not kept yet and return one row a contender, in the order of `study.contenders`.

    A contender other than a reference that raises is returned with its error: a comparison that drops what failed
    flatters what is left. The error of a reference is raised, since nothing can be said without it.
    """
    records = Records(study.folder)
    ordered = study.ordered()
    by_name = {c.name: Row(contender=c) for c in ordered}
    rows = list(by_name.values())
    chosen = list(study.requests[: study.timing_requests])
    bar = tqdm(
        total=len(ordered) * len(study.requests),
        unit="sample",
        desc="compare",
        disable=not progress,
        dynamic_ncols=True,
    )
    with bar:
        for row in rows:
            bar.set_postfix_str(row.contender.name)
            reached = bar.n
            try:
                row.samples = run_contender(study, records, row.contender, bar.update)
            except Exception as error:  # a contender may be foreign code, and may raise anything
                if row.contender.name in study.references:
                    raise
                row.error = f"{type(error).__name__}: {error}".strip()
                bar.update(reached + len(study.requests) - bar.n)
        timed = rows_to_time(study, by_name) if study.timing_requests else []
        bar.total += len(timed)
        for row in timed:
            bar.set_postfix_str(f"timing {row.contender.name}")
            row.pairs = run_timing(study, records, by_name[study.plain].contender, row.contender, chosen)
            bar.update(1)
        for row in rows if study.timing_requests else []:
            row.pairs = row.pairs or kept_timing(study, records, row.contender, chosen) or []  # it costs nothing more
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
    near = nearest_of_each(speedups, curves, study.target)
    return [row for name, row in by_name.items() if name in work and (name in near or row.contender.shown)]


def mark_of(study: Study, contender: Contender, requests: Sequence[Request]) -> str:
    """Fingerprint of `contender` on `requests`, with everything its numbers depend on."""
    by_name = {c.name: c for c in study.contenders}
    described = [
        [c.name, c.kind, c.steps, c.settings] for c in (contender, *(by_name[name] for name in study.references))
    ]
    return fingerprint(study.identity, described, [asdict(r) for r in requests], sorted(runnable()))


def runnable() -> dict[str, Metric]:
    """The metrics that have on this machine what they need."""
    return {name: metric for name, metric in METRICS.items() if metric.missing() is None}


def run_contender(
    study: Study, records: Records, contender: Contender, advance: Callable[[int], object]
) -> list[dict[str, Any]]:
    """All samples of one contender, from disk where they are kept."""
    samples: list[dict[str, Any]] = []
    for batch in batches(study.requests, min(study.batch, contender.batch)):
        path = records.batch_file(contender.name, batch)
        mark = mark_of(study, contender, batch)
        kept = records.load(path, mark)
        if contender.name in study.references and not records.has_reference(contender.name, [r.index for r in batch]):
            kept = None
        if kept is None:
            kept = run_batch(study, records, contender, batch)
            records.save(path, mark, kept)
        samples += [{"work": sample["blocks"], **sample} for sample in kept]
        advance(len(batch))
    return samples


def run_batch(study: Study, records: Records, contender: Contender, batch: list[Request]) -> list[dict[str, Any]]:
    """Generate one batch, keep its pictures, and measure it."""
    results = contender.generate(batch)
    if len(results) != len(batch):
        raise MeasurementError(f"'{contender.name}' made {len(results)} results for {len(batch)} requests")
    for request, result in zip(batch, results, strict=True):
        if contender.name in study.references:
            if not np.isfinite(result.media).all():
                raise MeasurementError(f"the reference '{contender.name}' made values that are not finite")
            records.save_reference(contender.name, request.index, result)
        records.save_picture(contender.name, request.index, result.media)
    metrics = runnable()
    checks = run_check(study, batch, results)
    follows = [read_alone(metrics, request, result) for request, result in zip(batch, results, strict=True)]
    features = read_features(extractors(metrics, study.features), [result.media for result in results])
    return [
        {
            "index": request.index,
            "blocks": float(result.blocks),
            "work": float(result.blocks) * block_work((result.trace or {}).get("attention")),
            "metrics": measure(study, records, contender.name, request, result, metrics),
            "checks": {**(check or {}), **alone} or None,
            "features": vectors,
            "trace": kept_of(result.trace),
        }
        for request, result, check, alone, vectors in zip(batch, results, checks, follows, features, strict=True)
    ]


def kept_of(trace: dict[str, Any] | None) -> dict[str, Any] | None:
    """The part of a trace that is kept: its calls as they are, of its attention a digest."""
    if not trace or not trace.get("attention"):
        return trace
    return {**trace, "attention": digest(trace["attention"], trace.get("warnings", ()))}


def run_check(study: Study, batch: list[Request], results: list[Result]) -> list[dict[str, float] | None]:
    """How well each sample follows its prompt; None for one that is not finite, or where there is no check."""
    verdicts: list[dict[str, float] | None] = [None] * len(batch)
    finite = [i for i, result in enumerate(results) if np.isfinite(result.media).all()]
    if study.check is not None and finite:
        read = study.check([results[i].media for i in finite], [batch[i].prompt for i in finite])
        for place, verdict in zip(finite, read, strict=True):
            verdicts[place] = {key: float(value) for key, value in verdict.items()}
    return verdicts


def fits(metric: Metric, media: np.ndarray) -> bool:
    """Whether `metric` can read media of this size and length."""
    frames = len(media) if media.ndim == 4 else 1
    return min(media.shape[-3:-1]) >= metric.smallest and frames >= metric.frames


def read_alone(metrics: dict[str, Metric], request: Request, result: Result) -> dict[str, float]:
    """Metrics that read one answer and its prompt; none for a prompt that is no text, or media that are not finite."""
    if not isinstance(request.prompt, str) or not np.isfinite(result.media).all():
        return {}
    chosen = {name: m for name, m in metrics.items() if m.kind == "prompt" and fits(m, result.media)}
    return {name: float(metric.measure(result.media, request.prompt)) for name, metric in chosen.items()}


def measure(
    study: Study,
    records: Records,
    contender: str,
    request: Request,
    result: Result,
    metrics: dict[str, Metric],
) -> dict[str, dict[str, float | None]]:
    """Every metric of pairs of one sample against its references; infinities capped, None for what is no number."""
    table: dict[str, dict[str, float | None]] = {}
    for reference in study.compared_with(contender):
        truth = records.load_reference(reference, request.index)
        table[reference] = {}
        for name, metric in metrics.items():
            if metric.kind != "pair":
                continue
            made = result.media if metric.of == "media" else result.latents
            if made is None or metric.of not in truth:
                continue
            if metric.of == "media" and not fits(metric, made):
                continue
            value = metric.measure(made, truth[metric.of])
            if metric.cap is not None and not math.isnan(value):
                value = min(value, metric.cap)
            table[reference][name] = value if math.isfinite(value) else None
    return table


def timing_mark(study: Study, contender: Contender, requests: list[Request]) -> str:
    """Fingerprint of a contender's times."""
    return fingerprint(mark_of(study, contender, requests), study.timing_rounds, study.device)


def kept_timing(study: Study, records: Records, contender: Contender, requests: list[Request]) -> list[Pair] | None:
    """Paired times that an earlier run measured, or None."""
    kept = records.load(records.cell(contender.name) / "timing.json", timing_mark(study, contender, requests))
    return None if kept is None else [Pair(plain=Span(**p["plain"]), contender=Span(**p["contender"])) for p in kept]


def run_timing(
    study: Study, records: Records, plain: Contender, contender: Contender, requests: list[Request]
) -> list[Pair]:
    """Paired times of one contender, from disk where they are kept."""
    kept = kept_timing(study, records, contender, requests)
    if kept is not None:
        return kept
    pairs = time_pairs(
        plain.timed or plain.generate,
        contender.timed or contender.generate,
        requests,
        device=study.device,
        rounds=study.timing_rounds,
    )
    path = records.cell(contender.name) / "timing.json"
    records.save(path, timing_mark(study, contender, requests), [p.as_dict() for p in pairs])
    return pairs
