"""The report's tables as rows of plain cells, shared by the page and the Markdown file."""

from __future__ import annotations

from typing import Any


def cell_table(results: dict[str, Any], reference: str) -> dict[str, Any]:
    """Quality of every curve at the compared speed-ups: {"speedups", "rows": [{"curve", "cells": [...]}]}.

    The best of a column is marked "best"; a column no curve reaches stays empty.
    """
    speedups = results["speedups"]
    cells = results["cells"].get(reference, [])
    curves = list(dict.fromkeys(cell["curve"] for cell in cells))
    table = {(cell["curve"], cell["speedup"]): cell for cell in cells}
    best = {
        s: max((c["quality"]["value"] for c in cells if c["speedup"] == s and c["quality"]), default=None)
        for s in speedups
    }
    rows = []
    for curve in curves:
        kind = table[curve, speedups[0]]["kind"]
        row = {"curve": curve, "ours": results["kinds"][kind]["ours"], "cells": []}
        for s in speedups:
            quality = table[curve, s]["quality"]
            behind = [rival for rival, m in table[curve, s]["margins"].items() if m["verdict"] == "behind"]
            row["cells"].append(
                {"quality": quality, "best": bool(quality) and quality["value"] == best[s], "behind": behind}
            )
        rows.append(row)
    middle = len(speedups) // 2
    rows.sort(key=lambda r: -(r["cells"][middle]["quality"] or {"value": float("-inf")})["value"])
    return {"speedups": speedups, "rows": rows}


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
    """Every contender with all it was measured by: {"references", "metrics", "checks", "rows"}.

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
    return {"references": references, "metrics": metrics, "checks": checks, "rows": rows}


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


def label_of(results: dict[str, Any], key: str) -> str:
    """The label of a metric, or the name of a check."""
    return results["metrics"][key]["label"] if key in results["metrics"] else key
