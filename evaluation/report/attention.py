"""What sparse attention left out: for each contender a heat map of layers and heads, a curve of drift, and figures."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from ..pareto import Point, dominates
from .attention_drawings import Axis, heat_map, percent, shade, step_curve

SPOKEN = 4
"""Events of searching that are told in words."""
SHADES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Densities that the legend shows."""


def sparse_contenders(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The contenders whose attention was recorded."""
    return [c for c in results["contenders"] if not c["error"] and c.get("attention")]


def attention_section(results: dict[str, Any]) -> dict[str, Any] | None:
    """All that the section shows, or None where no contender has sparse attention."""
    found = sparse_contenders(results)
    if not found:
        return None
    last = [e["step"] for c in found for e in (*c["attention"]["drift"], *c["attention"]["searches"])]
    steps = max([c["steps"] for c in found] + [step + 1 for step in last])
    return {
        "rows": [figures(c) | {"quality": quality_of(results, c)} for c in found],
        "cards": [
            {
                "label": c["label"],
                "curve": c["curve"],
                "heat": Markup(heat_map(c)) if any(c["attention"]["density"]) else None,
                "curves": [
                    Markup(step_curve(c, axis, steps))
                    for axis in axes(found)
                    if any(e.get(axis.mean) is not None for e in c["attention"]["drift"])
                ],
                "words": searches_in_words(c["attention"]),
                "notes": c["attention"]["warnings"],
            }
            for c in found
        ],
        "legend": [(density, shade(density)) for density in SHADES],
        "clocked": any(c["attention"]["seconds"] for c in found),
        "watched": any(c["attention"]["totals"].get("recall_later") is not None for c in found),
        "stays": any(dense == 1 for c in found for dense in c["attention"]["dense"]),
        "drifted": any(e["cause"] == "drift" for c in found for e in c["attention"]["searches"]),
    }


def axes(found: list[dict[str, Any]]) -> list[Axis]:
    """The curves over the steps: the drift, and where it was measured the mass that the sparse calls kept."""
    entries = [e for c in found for e in c["attention"]["drift"]]
    drift = Axis(
        name="drift",
        mean="mean",
        extreme="max",
        words="mean {mean}, largest {extreme}",
        low=0.0,
        high=max((e["max"] for e in entries), default=0.0) or 1e-3,
    )
    least = min((e["recall_least"] for e in entries if e.get("recall_least") is not None), default=None)
    if least is None:
        return [drift]
    mass = Axis(
        name="mass",
        mean="recall",
        extreme="recall_least",
        words="{mean} of the mass kept, {extreme} in the layer with the least,",
        low=min(math.floor(20 * least) / 20, 0.95),
        high=1.0,
        share=True,
    )
    return [mass, drift]


def quality_of(results: dict[str, Any], contender: dict[str, Any]) -> dict[str, Any] | None:
    """The headline metric against the plain pipeline."""
    study = results["study"]
    return contender["metrics"].get(study["plain"], {}).get(study["headline"])


def figures(contender: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    attention = contender["attention"]
    totals, seconds = attention["totals"], attention["seconds"]
    clocked = sum(seconds.get(kind, 0.0) for kind in ("search", "dense", "sparse"))
    stay = sum(dense == 1 for dense in attention["dense"])
    return {
        "label": contender["label"],
        "curve": contender["curve"],
        "speedup": contender["speedup"],
        "time": contender["time"],
        "density": totals["density"],
        "recall": totals["recall"],
        "least": totals["least_recall"],
        "work": totals["work"],
        "share": attention["share"],
        "error": attention["error"],
        "drift": totals["drift"],
        "later": totals.get("recall_later"),
        "least_later": totals.get("least_recall_later"),
        "searches": totals["searches"] / totals["requests"],
        "for_drift": totals["searches_for_drift"] / totals["requests"],
        "stay_dense": stay,
        "layers": len(attention["layers"]),
        "calls": {kind: count / totals["requests"] for kind, count in totals["calls"].items()},
        "bytes": totals["index_bytes"],
        "time_shares": {k: seconds[k] / clocked for k in ("search", "dense", "sparse")} if clocked else None,
        "overhead": seconds["search"] / seconds["replaced"] if seconds.get("replaced") else None,
    }


def searches_in_words(attention: dict[str, Any]) -> str:
    """When was searched: "For each prompt 20 searches at step 6, 20 at step 26, 3 at step 31 for drift."."""
    if not attention["searches"]:
        return "Nothing was searched, so everything ran dense."
    requests = attention["totals"]["requests"]
    events = sorted(attention["searches"], key=lambda e: -e["count"])
    told = [
        f"{e['count'] / requests:.3g} at step {e['step'] + 1}" + (" for drift" if e["cause"] == "drift" else "")
        for e in sorted(events[:SPOKEN], key=lambda e: e["step"])
    ]
    rest = sum(e["count"] for e in events[SPOKEN:])
    if rest:
        told.append(f"{rest / requests:.3g} at other steps")
    return f"Searches{' for each prompt' if requests > 1 else ''}: {', '.join(told)}."


def attention_lines(results: dict[str, Any]) -> list[str]:
    """One line a contender with sparse attention, for a terminal."""
    metric = results["metrics"][results["study"]["headline"]]
    lines = []
    for c in sparse_contenders(results):
        row, quality = figures(c), quality_of(results, c)
        parts = []
        predicted = f"{row['speedup']['value']:.2f}x predicted" if row["speedup"] else ""
        measured = f"{row['time']['wall']['value']:.2f}x measured" if row["time"] else "not timed"
        parts.append(", ".join(filter(None, (measured, predicted))))
        if quality:
            parts.append(f"{metric['label']} {quality['value']:.1f} {metric['unit']} to plain")
        parts += [", ".join(f"{key} {read['value']:.2f}" for key, read in c["checks"].items())] if c["checks"] else []
        if row["density"] is None:
            parts.append("nothing was left out of attention")
        else:
            kept = f"kept {percent(row['density'])} of the blocks"
            if row["recall"] is not None:
                kept += f" with {percent(row['recall'], 1)} of the mass (least {percent(row['least'], 1)})"
            if row["later"] is not None:
                kept += f", later {percent(row['later'], 1)} (layer with the least {percent(row['least_later'], 1)})"
            parts += [kept, f"{percent(row['work'])} of dense attention's work"]
        if row["searches"]:
            drifted = f", {row['for_drift']:.0f} for drift" if row["for_drift"] else ""
            parts.append(f"{row['searches']:.0f} searches{drifted}")
        if row["stay_dense"]:
            parts.append(f"{row['stay_dense']} of {row['layers']} layers stay dense")
        parts += behind(results, c)
        lines.append(f"{c['label']}: " + "; ".join(parts))
    return lines


def behind(results: dict[str, Any], contender: dict[str, Any]) -> list[str]:
    """Who is at least as fast and closer to the plain pipeline: in computed work, and by the clock."""
    label = {c["name"]: c["label"] for c in results["contenders"]}
    rivals = contender.get("beaten_by", {}).get(results["study"]["plain"], [])
    quality, told = quality_of(results, contender), []
    if rivals:
        told.append(f"behind {', '.join(label[name] for name in rivals)} in work and fidelity")
    if quality and contender["time"]:
        own = Point(name="", speedup=contender["time"]["wall"]["value"], quality=quality["value"])
        faster = [
            c["label"]
            for c in results["contenders"]
            if not c["error"]
            and c["time"]
            and not results["kinds"][c["kind"]]["ours"]
            and (q := quality_of(results, c))
            and dominates(Point(name="", speedup=c["time"]["wall"]["value"], quality=q["value"]), own)
        ]
        told += [f"behind {', '.join(faster)} in time and fidelity"] if faster else []
    return told
