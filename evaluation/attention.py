"""What sparse attention did, kept small: the record of one request boiled down, and requests put together.

A record is plain data that a contender's trace carries under "attention": {"layers", "heads", "tokens", "share",
"backends", "seconds", "searches", "drifts", "totals"}. A run of a large model searches thousands of times; what a
report shows of it is a number for each layer and head, a curve over the steps, and some totals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

DIGITS = 5
"""Significant digits that are kept of every number for a layer, a head or a step."""

Table = list[list[float] | None]
"""[layer][head]; None for a layer without."""


def block_work(attention: dict[str, Any] | None) -> float:
    """Work of a block that runs, as a share of one with dense attention, from a record or its digest.

    Only the attention of a block shrinks: 1 - share x (1 - work). Searches count: a dense call 1, a mass pass a half.
    """
    if not attention:
        return 1.0
    work = attention["totals"]["work"]
    return 1.0 if work is None else 1.0 - attention["share"] * (1.0 - work)


def digest(attention: dict[str, Any], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """One request's record without its single searches and calls.

    Returns:
        "layers": names; "density", "recall", "least": tables over them, means over searches, guidance branches and
        rows (least: the smallest); "dense": share of a layer's searches that left it dense, which count density 1;
        "searches": [{"step", "cause", "count", "kept"}]; "drift": by step how well the sparse calls fitted, see
        `fit_of`; "fresh": searches whose normaliser was measured by a dense call of their own; the rest as in the
        record.
    """
    searches, drifts = attention["searches"], attention["drifts"]
    parts = list(dict.fromkeys(s["denoiser"] for s in searches)) or [""]
    places = [(part, layer) for part in parts for layer in dict.fromkeys(attention["layers"])]
    by_place: dict[tuple[str, str], list[dict[str, Any]]] = {place: [] for place in places}
    for search in searches:
        by_place.setdefault((search["denoiser"], search["layer"]), []).append(search)
    found = list(by_place.values())
    kept = [[s for s in some if s["kept"]] for some in found]
    errors = [e for s in searches for e in s.get("error") or []]
    events = Counter((s["step"], s["cause"]) for s in searches)
    return {
        "layers": [layer if len(parts) == 1 else f"{part}.{layer}" for part, layer in by_place],
        "heads": attention["heads"],
        "tokens": attention["tokens"],
        "share": attention["share"],
        "density": [
            columns(([1.0] * len(s["density"]) if not s["kept"] else s["density"]) for s in some) for some in found
        ],
        "recall": [columns(s["recall"] for s in some if s["recall"] is not None) for some in kept],
        "least": [columns((s["least_recall"] for s in some if s["least_recall"] is not None), min) for some in kept],
        "dense": [rounded(mean(not s["kept"] for s in some)) if some else None for some in found],
        "searches": [
            {
                "step": step,
                "cause": cause,
                "count": count,
                "kept": sum(s["kept"] for s in searches if (s["step"], s["cause"]) == (step, cause)),
            }
            for (step, cause), count in sorted(events.items())
        ],
        "fresh": sum(s["recall"] is not None for s in searches),
        "drift": [fit_of([d for d in drifts if d["step"] == step]) for step in sorted({d["step"] for d in drifts})],
        "error": rounded(max(errors)) if errors else None,
        "seconds": dict(attention["seconds"]),
        "backends": dict(attention["backends"]),
        "totals": dict(attention["totals"]),
        "warnings": list(warnings),
    }


def merge(digests: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The digests of a contender's requests as one of the same form: means over requests, sums of what is counted.

    "totals" gets "requests" and, for clocks that tell, "seconds": what each kind of call took, see `seconds_of`.
    """
    if not digests:
        return None
    first = digests[0]
    names = list(dict.fromkeys(layer for d in digests for layer in d["layers"]))
    calls: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for d in digests:
        calls.update(d["totals"]["calls"])
        spent.update(d["seconds"])
    totals = [d["totals"] for d in digests]
    events: Counter[tuple[int, str]] = Counter()
    kept: Counter[tuple[int, str]] = Counter()
    for event in (e for d in digests for e in d["searches"]):
        events[event["step"], event["cause"]] += event["count"]
        kept[event["step"], event["cause"]] += event["kept"]
    fresh = sum(d["fresh"] for d in digests)
    return {
        "layers": names,
        "heads": first["heads"],
        "tokens": max(d["tokens"] for d in digests),
        "share": mean(d["share"] for d in digests),
        "density": tables(digests, "density", names),
        "recall": tables(digests, "recall", names),
        "least": tables(digests, "least", names, min),
        "dense": [one and one[0] for one in tables(digests, "dense", names)],
        "searches": [
            {"step": step, "cause": cause, "count": count, "kept": kept[step, cause]}
            for (step, cause), count in sorted(events.items())
        ],
        "fresh": fresh,
        "drift": [fit_together(step, digests) for step in sorted({e["step"] for d in digests for e in d["drift"]})],
        "error": max((d["error"] for d in digests if d["error"] is not None), default=None),
        "seconds": seconds_of(spent, calls, fresh),
        "backends": first["backends"],
        "totals": {
            "requests": len(digests),
            "calls": dict(calls),
            "searches": sum(t["searches"] for t in totals),
            "searches_for_drift": sum(t["searches_for_drift"] for t in totals),
            "density": average(t["density"] for t in totals),
            "recall": average(t["recall"] for t in totals),
            "least_recall": min((t["least_recall"] for t in totals if t["least_recall"] is not None), default=None),
            "drift": max((t["drift"] for t in totals if t["drift"] is not None), default=None),
            "recall_later": average(t.get("recall_later") for t in totals),
            "least_recall_later": min(
                (t["least_recall_later"] for t in totals if t.get("least_recall_later") is not None), default=None
            ),
            "work": average(t["work"] for t in totals),
            "index_bytes": max(t["index_bytes"] for t in totals),
        },
        "warnings": list(dict.fromkeys(w for d in digests for w in d["warnings"])),
    }


def seconds_of(spent: Mapping[str, float], calls: Mapping[str, int], fresh: int) -> dict[str, float]:
    """Seconds by kind of call, over all requests; empty where nothing was clocked.

    Dense calls are clocked where a search makes them; elsewhere the module runs untouched. Their time is that of the
    clocked ones a call times all dense calls. "search" is the mass and the selection alone; "replaced" is what the
    sparse calls would have taken had they been dense.
    """
    if not spent or not fresh or not spent.get("dense"):
        return {}
    each = spent["dense"] / fresh
    return {
        "search": spent.get("mass", 0.0),
        "dense": each * (calls.get("dense", 0) + calls.get("fallback", 0)),
        "sparse": spent.get("sparse", 0.0),
        "replaced": each * calls.get("sparse", 0),
    }


def fit_of(calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How well the sparse calls of one step fitted: {"step", "count", "mean", "max"} of the drift, and "recall",
    "recall_least" of the mass that they kept, None where it was not measured.
    """
    drifts = [d["drift"] for d in calls]
    recalls = [d["recall"] for d in calls if d.get("recall") is not None]
    return {
        "step": calls[0]["step"],
        "count": len(calls),
        "mean": rounded(mean(drifts)),
        "max": rounded(max(drifts)),
        "recall": rounded(mean(recalls)) if recalls else None,
        "recall_least": rounded(min(recalls)) if recalls else None,
    }


def fit_together(step: int, digests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same over all requests."""
    found = [e for d in digests for e in d["drift"] if e["step"] == step]
    count = sum(e["count"] for e in found)
    measured = [e for e in found if e.get("recall") is not None]
    return {
        "step": step,
        "count": count,
        "mean": rounded(sum(e["mean"] * e["count"] for e in found) / count),
        "max": max(e["max"] for e in found),
        "recall": rounded(sum(e["recall"] * e["count"] for e in measured) / sum(e["count"] for e in measured))
        if measured
        else None,
        "recall_least": min((e["recall_least"] for e in measured), default=None),
    }


def tables(digests: Sequence[dict[str, Any]], key: str, names: Sequence[str], how: Any = mean) -> Table:
    """The tables `key` of several digests as one, layer by layer."""
    rows: dict[str, list[list[float]]] = {name: [] for name in names}
    for d in digests:
        for name, row in zip(d["layers"], d[key], strict=True):
            if row is not None:
                rows[name].append(row if isinstance(row, list) else [row])
    return [columns(some, how) for some in rows.values()]


def columns(rows: Iterable[Sequence[float]], how: Any = mean) -> list[float] | None:
    """Each column of `rows` as one number; None without rows."""
    held = list(rows)
    return [rounded(how(column)) for column in zip(*held, strict=True)] if held else None


def average(values: Iterable[float | None]) -> float | None:
    """The mean of the values that there are."""
    found = [v for v in values if v is not None]
    return mean(found) if found else None


def rounded(value: float) -> float:
    """`value` to some significant digits."""
    return float(f"{value:.{DIGITS}g}")
