"""Who is best for the same time and for the same picture, and who leaves whom nothing: tables, and losses in words."""

from __future__ import annotations

from statistics import median
from typing import Any

from .tables import cell_table, rows_of

CLOCKS = ("compute", "time")


def equal_section(results: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """{"time", "fidelity", "dominance"}, each a table or None; None for results that hold nothing of the kind."""
    section = {
        "time": equal_time_table(results, reference),
        "fidelity": equal_fidelity_table(results, reference),
        "dominance": dominance_table(results, reference),
    }
    return section if any(section.values()) else None


def equal_time_table(results: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """Quality of every timed curve where it takes as long as the others: {"heads", "rows"}; None where none was."""
    table = cell_table(results, reference, "equal_time")
    if not table["rows"]:
        return None
    seconds = plain_seconds(results)
    return {"heads": [f"{share(s)}, {seconds / s:.2g} s" for s in table["speedups"]], "rows": table["rows"]}


def share(speedup: float) -> str:
    """The part of the plain pipeline's time that is left: "1/2.5"."""
    return f"1/{speedup:g}"


def plain_seconds(results: dict[str, Any]) -> float:
    """Median wall time of the plain pipeline over all pairs it was timed in."""
    return median(p["plain"]["wall"] for c in results["contenders"] if c.get("time") for p in c["time"]["pairs"])


def equal_fidelity_table(results: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """Speed-up of every curve at each level of quality, counted and by the clock: {"levels", "clocks", "rows"}.

    A row has a cell for each level in compute, then, where there are timed curves, for each level in time. No cell of
    a column is best where a curve that is open might be.
    """
    found = results.get("equal_fidelity", {}).get(reference)
    if not found or not found["levels"]:
        return None
    clocks = [clock for clock in CLOCKS if found[clock]]
    columns = [
        {e["curve"]: e for e in found[clock] if e["level"] == level["quality"]}
        for clock in clocks
        for level in found["levels"]
    ]
    rows = rows_of(results, columns, "speedup", 0)
    for place in range(len(columns)):
        cells = [row["cells"][place] for row in rows]
        if any(cell["speedup"] and cell["speedup"]["open"] and not cell["best"] for cell in cells):
            for cell in cells:  # one that is not the best so far may go on beyond it
                cell["best"] = False
    return {"levels": found["levels"], "clocks": clocks, "rows": rows}


def dominance_table(results: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """Shares of points beaten, ours in rows and rivals in columns: {"rivals", "rows": [{"curve", "cells"}]}.

    A cell is {"lost": share of our points that the rival dominates, "won": share of its points that ours dominate}.
    """
    shares = results.get("dominance", {}).get(reference, {})
    kind_of = {c["curve"]: c["kind"] for c in results["contenders"]}
    ours = [curve for curve in shares if results["kinds"][kind_of[curve]]["ours"]]
    rivals = [curve for curve in shares if curve not in ours]
    if not ours or not rivals:
        return None
    rows = [
        {"curve": curve, "cells": [{"lost": shares[curve][r], "won": shares[r][curve]} for r in rivals]}
        for curve in ours
    ]
    return {"rivals": rivals, "rows": rows}


def equal_losses(results: dict[str, Any], reference: str) -> dict[tuple[str, str], list[str]]:
    """{(curve of ours, rival): where it is significantly behind}, at equal time and for equal pictures."""
    unit = results["metrics"][results["study"]["headline"]]["unit"]
    found: dict[tuple[str, str], list[str]] = {}
    for cell in results.get("equal_time", {}).get(reference, []):
        for rival, margin in cell["margins"].items():
            if margin["verdict"] == "behind":
                where = f"{-margin['value']:.1f} {unit} in {share(cell['speedup'])} of the plain time"
                found.setdefault((cell["curve"], rival), []).append(where)
    compute = results["study"].get("compute", "blocks")
    fidelity = results.get("equal_fidelity", {}).get(reference, {})
    for clock in CLOCKS:
        for entry in fidelity.get(clock, []):
            for rival, margin in entry["margins"].items():
                if margin["verdict"] == "behind":
                    spent = f"{1 / margin['value']:.2f}x the {'time' if clock == 'time' else compute}"
                    found.setdefault((entry["curve"], rival), []).append(f"{spent} for {entry['level']:.1f} {unit}")
    return found


def same_picture_in_words(results: dict[str, Any], reference: str, curve: str) -> str | None:
    """How fast `curve` is beside fewer steps at the middle one of their levels; None where it is not known."""
    found = results.get("equal_fidelity", {}).get(reference)
    if not found or not found["levels"]:
        return None
    level = found["levels"][len(found["levels"]) // 2]
    unit = results["metrics"][results["study"]["headline"]]["unit"]
    compute = results["study"].get("compute", "blocks")
    spoken = []
    for clock in CLOCKS:
        for entry in found[clock]:
            margin = entry["margins"].get(level["curve"])
            if entry["curve"] == curve and entry["level"] == level["quality"] and margin:
                bound = "at least " if entry["speedup"]["open"] else ""
                within = f"({margin['low']:.2f} to {margin['high']:.2f})"
                spoken.append(f"{bound}{margin['value']:.2f}x {within} in {'time' if clock == 'time' else compute}")
    if not spoken:
        return None
    return (
        f"For the {level['quality']:.1f} {unit} that {level['curve']} reach at {level['speedup']:g}x, {curve} is "
        f"{' and '.join(spoken)} as fast as {level['curve']}."
    )
