"""One batch at a time: which are to be made, making one, measuring it against the references, and keeping it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..errors import MeasurementError
from .attention import block_work, digest
from .contender import KINDS, Contender, Request, Result
from .features import extractors, read_features
from .metrics import METRICS, Metric
from .records import Records, fingerprint
from .study import Row, Study
from .workers import Crew


class BatchMaker:
    """Does the jobs of a study: ("gated-0.15", 3) makes that contender's batch 3, measures it and keeps it.

    What it returns is the contender's error, or None. The error of a reference is raised.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.records = Records(study.folder)
        self.contenders = {c.name: c for c in study.contenders}
        self.failed: dict[str, tuple[int, str]] = {}
        """Contenders that raised, at which batch and with what: later batches of theirs are not tried."""

    def __call__(self, job: tuple[str, int]) -> str | None:
        name, number = job
        first, said = self.failed.get(name, (number, None))
        if said is not None and number > first:
            return said
        contender = self.contenders[name]
        try:
            make_batch(self.study, self.records, contender, batches(self.study, contender)[number])
        except Exception as error:  # a contender may be foreign code, and may raise anything
            if name in self.study.references:
                raise
            self.failed[name] = number, f"{type(error).__name__}: {error}".strip()
            return self.failed[name][1]
        return None


def run_stage(study: Study, records: Records, crew: Crew, rows: Sequence[Row], bar: tqdm[Any]) -> None:
    """Have the crew make what is not kept of `rows`, and fill them in the leading process."""
    jobs = [
        (row.contender, number, batch) for row in rows for number, batch in enumerate(batches(study, row.contender))
    ]
    kept = {(c.name, n): load_batch(study, records, c, batch) for c, n, batch in jobs} if crew.leads else {}
    sizes = {(c.name, n): len(batch) for c, n, batch in jobs}
    bar.update(sum(sizes[job] for job, samples in kept.items() if samples is not None))
    errors: dict[str, tuple[int, str]] = {}
    for (name, number), error in crew.work([job for job, samples in kept.items() if samples is None]):
        bar.set_postfix_str(name)
        bar.update(sizes[name, number])
        if error is not None:  # the error shown is that of the first batch, whoever was faster
            errors[name] = min(errors.get(name, (number, error)), (number, error))
    if not crew.leads:
        return
    for row in rows:
        name = row.contender.name
        if name in errors:
            row.error = errors[name][1]
            continue
        for number, batch in enumerate(batches(study, row.contender)):
            samples = kept[name, number] or load_batch(study, records, row.contender, batch)
            if samples is None:
                raise MeasurementError(
                    f"batch {number} of '{name}' was made but is not in {study.folder}: all workers must see this "
                    "folder, and have the same versions and kind of device"
                )
            row.samples += samples


def batches(study: Study, contender: Contender) -> list[list[Request]]:
    """Fixed slices: a study that is continued makes the very batches it would have made in one go."""
    size = min(study.batch, contender.batch)
    return [list(study.requests[i : i + size]) for i in range(0, len(study.requests), size)]


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
    for batch in batches(study, contender):
        samples += load_batch(study, records, contender, batch) or make_batch(study, records, contender, batch)
        advance(len(batch))
    return samples


def load_batch(
    study: Study, records: Records, contender: Contender, batch: Sequence[Request]
) -> list[dict[str, Any]] | None:
    """The samples of a batch that is kept, of a reference with what it made; else None."""
    kept = records.load(records.batch_file(contender.name, batch), mark_of(study, contender, batch))
    if contender.name in study.references and not records.has_reference(contender.name, [r.index for r in batch]):
        return None
    if not isinstance(kept, list) or [s.get("index") for s in kept if isinstance(s, dict)] != [r.index for r in batch]:
        return None  # nothing is there, or it was cut or edited
    return [{"work": sample["blocks"], **sample} for sample in kept]


def make_batch(study: Study, records: Records, contender: Contender, batch: list[Request]) -> list[dict[str, Any]]:
    """Generate, measure and keep one batch."""
    made = run_batch(study, records, contender, batch)
    records.save(records.batch_file(contender.name, batch), mark_of(study, contender, batch), made)
    return made


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
            "metrics": measure(study, records, contender, request, result, metrics),
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
    contender: Contender,
    request: Request,
    result: Result,
    metrics: dict[str, Metric],
) -> dict[str, dict[str, float | None]]:
    """Every metric of pairs of one sample against its references; infinities capped, None for what is no number.

    Of a contender whose pictures are its own there are none.
    """
    table: dict[str, dict[str, float | None]] = {}
    for reference in study.compared_with(contender.name):
        table[reference] = {}
        if not KINDS[contender.kind].likened:
            continue
        truth = records.load_reference(reference, request.index)
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
