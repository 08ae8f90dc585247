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
