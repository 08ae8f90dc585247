"""Turns the rows of a study into results.json, schema 1: the one source of the table and the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..errors import MeasurementError
from . import routing
from .attention import merge
from .cells import Curve, compare_at
from .contender import KINDS
from .dominance import dominated_shares
from .equal import compare_at_levels, levels_of
from .features import features_of
from .intervals import jackknife_interval, mean_interval, percentile_interval, resamples
from .memory import ratio_to_plain
from .metrics import METRICS, Metric
from .paired import beside_plain
from .pareto import Point, dominates, front
from .samples import runnable
from .study import Row, Study
from .timing import speedup as time_ratio

SCHEMA = 1
HEADLINE = "psnr"
"""The metric of plots, cells and verdicts."""


def build_results(
    study: Study,
    rows: Sequence[Row],
    *,
    pipeline: dict[str, Any],
    command: str,
    environment: dict[str, str],
) -> dict[str, Any]:
    """Everything the report shows, as plain data.

    Args:
        pipeline: {"name", "class", "family", "kind" ("image" | "video"), "scheduler", "steps", "call", ...}.
        command: the exact command that makes this again.
    """
    plain = next(row for row in rows if row.contender.name == study.plain)
    plain_R = np.array([s["work"] for s in plain.samples])
    contenders = [describe(row, plain_R, study) for row in rows]
    reasons = add_set_distances(contenders, rows, study)
    add_paired_tests(contenders, rows, study)
    add_memory_ratios(contenders, study.plain)
    mark_front(contenders, study.references)
    by_work = {ref: curves_of(rows, plain_R, study, ref) for ref in study.references}
    by_time = {ref: curves_of(rows, plain_R, study, ref, timed=True) for ref in study.references}
    cells = {ref: compare_at(curves, study.speedups) for ref, curves in by_work.items()}
    levels = {ref: levels_of(cells[ref]) for ref in study.references}
    curve_of = {entry["name"]: entry["curve"] for entry in contenders}
    return {
        "schema": SCHEMA,
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": command,
        "pipeline": pipeline,
        "environment": environment,
        "study": {
            "plain": study.plain,
            "converged": study.converged,
            "references": study.references,
            "samples": len(study.requests),
            "batch": study.batch,
            "timed": study.timing_requests,
            "timing_batch": study.timing_batch,
            "timing_rounds": study.timing_rounds,
            "target": study.target,
            "device": study.device,
            "headline": HEADLINE,
            "compute": "work" if any(c.get("attention") for c in contenders) else "blocks",
        },
        "metrics": {name: {k: v for k, v in asdict_without_call(metric).items()} for name, metric in METRICS.items()},
        "not_run": not_run(contenders, study, reasons),
        "kinds": {name: {"label": kind.label, "ours": kind.ours} for name, kind in KINDS.items()},
        "requests": [asdict(r) for r in study.requests],
        "contenders": contenders,
        "speedups": list(study.speedups),
        "cells": cells,
        "equal_time": {ref: compare_at(curves, study.speedups) for ref, curves in by_time.items()},
        "equal_fidelity": {
            ref: {
                "levels": levels[ref],
                "compute": compare_at_levels(by_work[ref], levels[ref]),
                "time": compare_at_levels(by_time[ref], levels[ref]),
            }
            for ref in study.references
        },
        "dominance": {
            ref: dominated_shares(list(points_of(contenders, ref).values()), curve_of) for ref in study.references
        },
    }


def asdict_without_call(metric: Any) -> dict[str, Any]:
    """A metric's description without its function."""
    return {k: getattr(metric, k) for k in ("label", "kind", "unit", "better", "of", "cap", "digits", "summary")}


def add_set_distances(contenders: list[dict[str, Any]], rows: Sequence[Row], study: Study) -> dict[str, str]:
    """Add every distance of whole sets to the metrics of each contender; say why for those that cannot be taken."""
    by_name = {row.contender.name: row for row in rows}
    reasons: dict[str, str] = {}
    for name, metric in runnable().items():
        if metric.kind != "set":
            continue
        for entry in contenders:
            for reference in entry.get("metrics") or {}:
                try:
                    made = features_of(by_name[entry["name"]].samples, name)
                    truth = features_of(by_name[reference].samples, name)
                    found = jackknife_interval(metric.measure, made, truth)
                except MeasurementError as error:
                    reasons.setdefault(name, str(error))
                else:
                    entry["metrics"][reference][name] = found | {"worst": None, "capped": 0}
    return reasons


def add_paired_tests(contenders: list[dict[str, Any]], rows: Sequence[Row], study: Study) -> None:
    """Add to each contender how it differs from the plain pipeline, request by request: "beside_plain".

    {reference: {metric: test}} for distances to a reference that the plain pipeline has a distance to as well, and
    {"checks": {key: test}} for what is read off a sample alone.
    """
    plain = next(row for row in rows if row.contender.name == study.plain)
    others = [row for row in rows if row.error is None and row.contender.name not in study.references]
    entries = {entry["name"]: entry for entry in contenders}
    for row in others:
        entries[row.contender.name]["beside_plain"] = {}
    tables = {ref: [s["metrics"].get(ref, {}) for s in plain.samples] for ref in study.compared_with(study.plain)}
    tables["checks"] = [s["checks"] or {} for s in plain.samples]
    for place, table in tables.items():
        for key in table[0]:
            of_plain = [values.get(key) for values in table]
            made = {row.contender.name: [values_at(s, place).get(key) for s in row.samples] for row in others}
            whole: dict[str, list[Any]] = {name: values for name, values in made.items() if None not in values}
            if not whole or None in of_plain:
                continue
            for name, test in beside_plain(whole, of_plain).items():
                entries[name]["beside_plain"].setdefault(place, {})[key] = test


def values_at(sample: dict[str, Any], place: str) -> dict[str, Any]:
    """What was measured of a sample: its checks, or its distances to the reference `place`."""
    return (sample["checks"] if place == "checks" else sample["metrics"].get(place)) or {}


def not_run(contenders: Sequence[dict[str, Any]], study: Study, reasons: dict[str, str]) -> list[dict[str, Any]]:
    """The metrics with no value anywhere: {"metric", "label", "reason", "applies"}; none is left out in silence."""
    found = {
        key
        for entry in contenders
        for table in [*(entry.get("metrics") or {}).values(), entry.get("checks") or {}]
        for key in table
    }
    entries = []
    for name, metric in METRICS.items():
        if name in found:
            continue
        reason, applies = metric.missing() or reasons.get(name), True
        if metric.kind == "prompt" and not any(isinstance(r.prompt, str) for r in study.requests):
            reason, applies = "prompts are classes, not texts", False
        if reason is None:
            reason, applies = unfit(metric), False
        entries.append({"metric": name, "label": metric.label, "reason": reason, "applies": applies})
    return entries


def unfit(metric: Metric) -> str:
    """Why the media or the pipeline are nothing for `metric`, going by what it asks for."""
    needs = ["latents"] if metric.of == "latents" else []
    needs += [f"{metric.frames} frames"] if metric.frames > 1 else []
    needs += [f"{metric.smallest} pixels a side"] if metric.smallest > 1 else []
    return f"needs {' and '.join(needs)}" if needs else "gave no value"


def describe(row: Row, plain_R: np.ndarray, study: Study) -> dict[str, Any]:
    """One contender: settings, samples, means with intervals, times, timeline, worst sample."""
    contender = row.contender
    entry: dict[str, Any] = {
        "name": contender.name,
        "label": contender.label,
        "kind": contender.kind,
        "curve": contender.curve,
        "steps": contender.steps,
        "settings": contender.settings,
        "shown": contender.shown,
        "batch": min(study.batch, contender.batch),
        "error": row.error,
    }
    if row.error is not None:
        return entry
    entry["samples"] = [
        {"index": s["index"], "blocks": s["blocks"], "work": s["work"], "metrics": s["metrics"], "checks": s["checks"]}
        for s in row.samples
    ]
    entry["blocks"] = float(np.mean([s["blocks"] for s in row.samples]))
    entry["work"] = float(np.mean([s["work"] for s in row.samples]))
    entry["speedup"] = speedup_interval(plain_R, np.array([s["work"] for s in row.samples]))
    entry["metrics"] = {ref: means(row.samples, ref) for ref in study.compared_with(contender.name)}
    entry["not_finite"] = sum(
        any(v is None for v in table.values()) for s in row.samples for table in list(s["metrics"].values())[:1]
    )
    entry["checks"] = check_means(row.samples)
    entry["time"] = (
        {clock: time_ratio(row.pairs, clock).as_dict() for clock in ("wall", "cpu")}
        | {"pairs": [pair.as_dict() for pair in row.pairs]}
        if row.pairs
        else None
    )
    entry["memory"] = row.memory.as_dict() if row.memory else None
    entry["stages"] = row.stages
    entry["timeline"] = timeline(row.samples)
    entry["attention"] = merge([s["trace"]["attention"] for s in row.samples if (s["trace"] or {}).get("attention")])
    entry["routing"] = routing.merge([s["trace"]["routing"] for s in row.samples if (s["trace"] or {}).get("routing")])
    entry["worst"] = {
        ref: min(
            (s for s in row.samples if s["metrics"][ref].get(HEADLINE) is not None),
            key=lambda s, ref=ref: s["metrics"][ref][HEADLINE],
            default={"index": None},
        )["index"]
        for ref in study.compared_with(contender.name)
    }
    return entry


def add_memory_ratios(contenders: Sequence[dict[str, Any]], plain: str) -> None:
    """Add to the memory of each contender its "ratio" to the plain pipeline's, None where one cannot be told."""
    weighed = {entry["name"]: entry["memory"] for entry in contenders if entry.get("memory")}
    for memory in weighed.values():
        memory["ratio"] = ratio_to_plain(memory, weighed[plain]) if plain in weighed else None


def speedup_interval(plain_R: np.ndarray, work_R: np.ndarray) -> dict[str, Any] | None:
    """Work of the plain pipeline over work computed, all requests together, with its bootstrap interval.

    Work is counted in blocks; one whose attention is sparse counts for less.
    """
    if work_R.sum() <= 0:
        return None
    draws = resamples(plain_R.size)
    low, high = percentile_interval(plain_R[draws].sum(axis=1) / work_R[draws].sum(axis=1))
    return {"value": float(plain_R.sum() / work_R.sum()), "low": low, "high": high, "n": int(plain_R.size)}


def means(samples: Sequence[dict[str, Any]], reference: str) -> dict[str, Any]:
    """Mean of every metric with its interval; None where a sample has no finite value, which a mean would hide."""
    table: dict[str, Any] = {}
    for name in METRICS:
        values = [s["metrics"][reference].get(name, "left out") for s in samples]  # no set distances: those come after
        if "left out" in values:
            continue
        if any(v is None for v in values):
            table[name] = None
            continue
        cap = METRICS[name].cap
        table[name] = mean_interval(values).as_dict() | {
            "worst": min(values) if METRICS[name].better == "higher" else max(values),
            "capped": sum(v == cap for v in values) if cap is not None else 0,
        }
    return table


def check_means(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Conditioning accuracy by what is read: {"colour": {value, ...}}; a sample that is not finite counts 0."""
    keys = list(dict.fromkeys(key for s in samples for key in (s["checks"] or {})))
    return {key: mean_interval([(s["checks"] or {}).get(key, 0.0) for s in samples]).as_dict() for key in keys}


def timeline(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By step and branch: share of samples computed, gate errors, why; empty where nothing was traced."""
    places: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for sample in samples:
        for call in (sample["trace"] or {}).get("calls", []):
            places.setdefault((call["step"], str(call["branch"])), []).append(call)
    entries = []
    for (step, branch), calls in sorted(places.items()):
        errors = [c["error"] for c in calls if c.get("error") is not None]
        reasons = Counter(c["reason"] for c in calls if c.get("reason"))
        entries.append(
            {
                "step": step,
                "branch": branch,
                "sigma": calls[0].get("sigma"),
                "timestep": calls[0].get("timestep"),
                "computed": float(np.mean([float(c["computed"]) for c in calls])),
                "error": float(np.median(errors)) if errors else None,
                "error_high": float(np.max(errors)) if errors else None,
                "reasons": dict(reasons.most_common(3)),
            }
        )
    return entries


def points_of(contenders: Sequence[dict[str, Any]], reference: str) -> dict[str, Point]:
    """The contenders that have a place on the plane of `reference`."""
    points = {}
    for c in contenders:
        quality = (c.get("metrics") or {}).get(reference, {}).get(HEADLINE)
        if quality and c["speedup"] and c["kind"] not in ("plain", "converged"):
            points[c["name"]] = Point(name=c["name"], speedup=c["speedup"]["value"], quality=quality["value"])
    return points


def mark_front(contenders: list[dict[str, Any]], references: Sequence[str]) -> None:
    """Mark who is on the front against each reference, and for ours which rivals are faster and better."""
    ours = {c["name"] for c in contenders if KINDS[c["kind"]].ours}
    for c in contenders:
        c["front"], c["beaten_by"] = {}, {}
    for reference in references:
        points = points_of(contenders, reference)
        best = {p.name for p in front(list(points.values()))}
        for c in contenders:
            if c["name"] not in points:
                continue
            c["front"][reference] = c["name"] in best
            if c["name"] in ours:
                c["beaten_by"][reference] = [
                    name for name, p in points.items() if name not in ours and dominates(p, points[c["name"]])
                ]


def curves_of(
    rows: Sequence[Row], plain_R: np.ndarray, study: Study, reference: str, *, timed: bool = False
) -> list[Curve]:
    """The curves of two points and more, in the order their contenders came.

    A point with a sample at the metric's cap (identical to the reference) is left out: the cap is a convention, and
    interpolating from it would lift every value beside it.

    Args:
        timed: take the points that were timed, and for work the time of a call relative to the plain pipeline's: a
            median over pairs, alike for every request.
    """
    cap = METRICS[HEADLINE].cap
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        if row.error is None and reference in study.compared_with(row.contender.name) and (row.pairs or not timed):
            if row.contender.name not in study.references and all(
                s["metrics"][reference].get(HEADLINE) not in (None, cap) for s in row.samples
            ):
                grouped.setdefault(row.contender.curve, []).append(row)

    def work(row: Row) -> list[float]:
        return [1 / time_ratio(row.pairs).value] * plain_R.size if timed else [s["work"] for s in row.samples]

    return [
        Curve(
            name=name,
            kind=members[0].contender.kind,
            plain_R=np.ones(plain_R.size) if timed else plain_R,
            work_PR=np.array([work(row) for row in members]),
            quality_PR=np.array([[s["metrics"][reference][HEADLINE] for s in row.samples] for row in members]),
        )
        for name, members in grouped.items()
        if len(members) > 1 and all(s["work"] > 0 for row in members for s in row.samples)
    ]
