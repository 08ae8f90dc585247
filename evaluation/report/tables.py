"""The report's tables as rows of plain cells, shared by the page and the Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def cell_table(results: dict[str, Any], reference: str, source: str = "cells") -> dict[str, Any]:
    """Quality of every curve at the compared speed-ups: {"speedups", "rows": [{"curve", "cells": [...]}]}.

    Args:
        source: "cells", where speed-ups are counted, or "equal_time".
    """
    speedups = results["speedups"]
    cells = results.get(source, {}).get(reference, [])
    columns = [{cell["curve"]: cell for cell in cells if cell["speedup"] == s} for s in speedups]
    target = results["study"]["target"]
    middle = min(range(len(speedups)), key=lambda place: abs(speedups[place] - target))
    return {"speedups": speedups, "rows": rows_of(results, columns, "quality", middle)}


def rows_of(
    results: dict[str, Any], columns: Sequence[dict[str, dict[str, Any]]], key: str, ranked_by: int
) -> list[dict[str, Any]]:
    """One row a curve: {"curve", "ours", "cells": [{`key`: a value or None, "best", "behind": rivals}]}, best first.

    The best of a column is marked "best"; a column no curve reaches stays empty.

    Args:
        columns: entries by curve, each with `key`, "kind" and "margins".
        ranked_by: the column that orders the rows.
    """
    best = [max((e[key]["value"] for e in column.values() if e[key]), default=None) for column in columns]
    rows = []
    for curve in dict.fromkeys(curve for column in columns for curve in column):
        entries = [column.get(curve, {key: None, "margins": {}}) for column in columns]
        kind = next(column[curve]["kind"] for column in columns if curve in column)
        cells = [
            {
                key: e[key],
                "worst": e.get("worst"),
                "best": bool(e[key]) and e[key]["value"] == top,
                "behind": [rival for rival, m in e["margins"].items() if m["verdict"] == "behind"],
            }
            for e, top in zip(entries, best, strict=True)
        ]
        rows.append({"curve": curve, "ours": results["kinds"][kind]["ours"], "cells": cells})
    rows.sort(key=lambda r: -(r["cells"][ranked_by][key] or {"value": float("-inf")})["value"])
    return rows


def margin_table(results: dict[str, Any], reference: str) -> dict[str, Any]:
    """By how much ours is ahead of each rival: {"rivals", "rows": [{"curve", "speedup", "margins": [...]}]}."""
    cells = [c for c in results["cells"].get(reference, []) if c["margins"]]
    rivals = list(dict.fromkeys(rival for cell in cells for rival in cell["margins"]))
    cells.sort(key=lambda c: c["curve"])
    rows = [
        {
            "curve": cell["curve"],
            "speedup": cell["speedup"],
            "margins": [cell["margins"].get(rival) for rival in rivals],
        }
        for cell in cells
    ]
    return {"rivals": rivals, "rows": rows}


def contender_table(results: dict[str, Any]) -> dict[str, Any]:
    """Every contender with all it was measured by: {"references", "metrics", "checks", "memory", "rows"}.

    Settings of one curve that failed with one message are one row.
    """
    references = results["study"]["references"]
    metrics = [
        name
        for name in sorted(results["metrics"], key=lambda name: name != results["study"]["headline"])
        if any(name in (c.get("metrics") or {}).get(r, {}) for c in results["contenders"] for r in references)
    ]
    checks = list(dict.fromkeys(key for c in results["contenders"] for key in (c.get("checks") or {})))
    rows, failed = [], set()
    for c in results["contenders"]:
        if c["error"]:
            if (c["curve"], c["error"]) in failed:
                continue
            failed.add((c["curve"], c["error"]))
            alike = [o["label"] for o in results["contenders"] if (o["curve"], o["error"]) == (c["curve"], c["error"])]
            c = c | {"label": c["label"] if len(alike) == 1 else f"{c['curve']} ({len(alike)} settings)"}
        rows.append(c)
    weighed = any((c.get("memory") or {}).get("above") is not None for c in results["contenders"])
    return {"references": references, "metrics": metrics, "checks": checks, "memory": weighed, "rows": rows}


def paired_table(results: dict[str, Any]) -> dict[str, Any]:
    """How contenders differ from the plain pipeline: {"heads", "rows": [{"label", "curve", "ours", "cells"}]}.

    The headline metric against each reference that the plain pipeline is compared with too, then everything read off a
    sample alone; a cell is a test with "better" True, False or, where it may be chance, None. The others are in
    results.json.
    """
    study, tested = results["study"], [c for c in results["contenders"] if c.get("beside_plain")]
    columns = [(ref, study["headline"]) for ref in study["references"] if ref != study["plain"]]
    keys = dict.fromkeys(key for c in tested for key in c["beside_plain"].get("checks", {}))
    columns += [("checks", key) for key in keys]
    heads = [
        f"{results['metrics'][key]['label']} to {place}" if place != "checks" else label_of(results, key)
        for place, key in columns
    ]
    rows = []
    for c in tested:
        cells = []
        for place, key in columns:
            test = c["beside_plain"].get(place, {}).get(key)
            metric = results["metrics"].get(key)
            up = metric is None or metric["better"] == "higher"
            sure = bool(test) and test["p_adjusted"] < 0.05
            cells.append(test | {"better": (test["value"] > 0) == up if sure else None} if test else None)
        rows.append(
            {"label": c["label"], "curve": c["curve"], "ours": results["kinds"][c["kind"]]["ours"], "cells": cells}
        )
    return {"heads": heads, "rows": rows if heads else []}


def stage_table(results: dict[str, Any]) -> dict[str, Any]:
    """Where the time of a call goes: {"heads", "rows": [{"label", "curve", "ours", "seconds", "denoising", "whole"}]}.

    "denoising" and "whole" are how many times as fast these are as the plain pipeline's. Empty where nothing was timed.
    """
    timed = [c for c in results["contenders"] if c.get("stages")]
    plain = next((c["stages"] for c in timed if c["name"] == results["study"]["plain"]), None)
    if plain is None:
        return {"heads": [], "rows": []}
    heads = [name for name in ("text", "denoising", "decoding") if name in plain]
    rows = [
        {
            "label": c["label"],
            "curve": c["curve"],
            "ours": results["kinds"][c["kind"]]["ours"],
            "seconds": [c["stages"].get(name) for name in (*heads, "whole")],
            **{
                name: plain[name] / c["stages"][name] if c["stages"].get(name) else None
                for name in ("denoising", "whole")
            },
        }
        for c in timed
    ]
    return {"heads": [*heads, "end to end"], "rows": rows}


def label_of(results: dict[str, Any], key: str) -> str:
    """The label of a metric, or the name of a check."""
    return results["metrics"][key]["label"] if key in results["metrics"] else key
