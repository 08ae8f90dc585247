"""The report on a classifier: a page and a Markdown table of accuracy and calibration, clean and under corruption."""

from __future__ import annotations

from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from ..calibration import CLEAN, mean_over, summary

HEADS = {"accuracy": "accuracy, %", "ece": "ECE", "nll": "NLL", "brier": "Brier"}
COLOURS = ("fewer-steps", "interval", "solver", "peer-0", "peer-1", "peer-2", "gated", "gated-solver", "sparse")
"""Variables of the page's style, in the order of the ways."""


def calibration_page(results: dict[str, Any]) -> str:
    """The whole page as text; it loads nothing from anywhere."""
    environment = Environment(
        loader=PackageLoader(__package__ or __name__, "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("calibration.html.j2").render(
        results=results,
        sentences=sentences(results),
        heads=HEADS,
        rows=summary(results),
        tables=[table(results, measure) for measure in HEADS],
        value=value,
        diagrams=[
            {"label": label, "drawing": Markup(reliability(results["bins"][way], COLOURS[place % len(COLOURS)]))}
            for place, (way, label) in enumerate(results["ways"].items())
        ],
    )


def calibration_markdown(results: dict[str, Any]) -> str:
    """The same tables in Markdown; every number comes from `results`."""
    lines = [f"# {results['title']}", ""]
    lines += [f"{said}\n" for said in (*sentences(results), seeds_in_words(results), *results["notes"])]
    lines += [f"Made {results['made']} on {results['environment']['device']} by", "", f"    {results['command']}", ""]
    heads = [f"{part} {head}" for part in ("clean", "corrupted") for head in HEADS.values()]
    lines += ["## Means", "", f"| way | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for row in summary(results):
        cells = [
            f"**{value(m, row[p][m])}**" if (p, m) in row["best"] else value(m, row[p][m])
            for p in ("clean", "corrupted")
            for m in HEADS
        ]
        lines.append(f"| {row['label']} | {' | '.join(cells)} |")
    lines += ["", "Bold: best of its column.", ""]
    for measure, head in HEADS.items():
        drawn = table(results, measure)
        lines += [f"## {head[0].upper() + head[1:]}", "", f"| corruption | {' | '.join(results['ways'].values())} |"]
        lines.append(f"|---|{'---:|' * len(results['ways'])}")
        for row in drawn["rows"]:
            cells = [f"**{c['text']}**" if c["best"] else c["text"] for c in row["cells"]]
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def sentences(results: dict[str, Any]) -> list[str]:
    """What came out, in words: calibration of each way beside the first, whoever wins."""
    rows = summary(results)
    by_error = sorted(rows, key=lambda row: row["corrupted"]["ece"])
    told = ", ".join(f"{row['corrupted']['ece']:.3f} ({row['label']})" for row in by_error)
    best = {
        "most accurate on clean pictures": max(rows, key=lambda row: row["clean"]["accuracy"]),
        "on corrupted ones": max(rows, key=lambda row: row["corrupted"]["accuracy"]),
    }
    likely = min(rows, key=lambda row: row["corrupted"]["nll"])
    first = rows[0]
    accurate = "; ".join(
        f"{where}: {row['label']}, {100 * row[part]['accuracy']:.1f} % ({first['label']}: "
        f"{100 * first[part]['accuracy']:.1f} %)"
        for part, (where, row) in zip(("clean", "corrupted"), best.items(), strict=True)
    )
    return [
        f"Over corrupted pictures the expected calibration error is {told}.",
        f"Best likelihood there: {likely['label']}, {likely['corrupted']['nll']:.2f} ({first['label']}: "
        f"{first['corrupted']['nll']:.2f}). {accurate[0].upper()}{accurate[1:]}.",
    ]


def seeds_in_words(results: dict[str, Any]) -> str:
    """How much a number stands on."""
    count, pictures = len(results["seeds"]), results["pictures"]
    runs = "one training" if count == 1 else f"{count} trainings, mean and (least to most)"
    return f"{pictures} pictures that nothing was trained or calibrated on; {runs}. ECE has ten equal bins."


def table(results: dict[str, Any], measure: str) -> dict[str, Any]:
    """A row a corruption and a column a way: mean over seeds, the range, whether it is the best of its row."""
    rows = []
    for name in results["corruptions"]:
        cells = [results["cells"][name][way][measure] for way in results["ways"]]
        rows.append({"name": name, "cells": _row(measure, cells)})
    means = [[mean_over(results, way, measure, lambda name: name != CLEAN)] for way in results["ways"]]
    rows.append({"name": "mean of corruptions", "cells": _row(measure, means)})
    return {"measure": measure, "head": HEADS[measure], "rows": rows}


def value(measure: str, number: float) -> str:
    """A measure as a table shows it."""
    return f"{100 * number:.1f}" if measure == "accuracy" else f"{number:.3f}"


def _row(measure: str, cells: list[list[float]]) -> list[dict[str, Any]]:
    means = [float(np.mean(cell)) for cell in cells]
    best = (max if measure == "accuracy" else min)(means)
    shown = []
    for cell, mean in zip(cells, means, strict=True):
        spread = f" ({value(measure, min(cell))} to {value(measure, max(cell))})" if len(cell) > 1 else ""
        shown.append({"text": value(measure, mean) + spread, "best": mean == best})
    return shown


def reliability(bins: list[tuple[float, float, float]], colour: str) -> str:
    """Accuracy over confidence; on the line probabilities mean what they say. The area of a point is its share."""
    side, edge = 200, 34

    def place(x: float, y: float) -> tuple[float, float]:
        return edge + side * x, 10 + side * (1 - y)

    low, high = place(0, 0), place(1, 1)
    marks = [
        f'<path class="axis" fill="none" d="M{low[0]} {high[1]}V{low[1]}H{high[0]}"/>',
        f'<path class="level" d="M{low[0]} {low[1]}L{high[0]} {high[1]}"/>',
    ]
    for tick in (0.0, 0.5, 1.0):
        marks.append(f'<text class="middle" x="{place(tick, 0)[0]}" y="{low[1] + 16}">{tick:g}</text>')
        marks.append(f'<text class="end" x="{low[0] - 6}" y="{place(0, tick)[1] + 4}">{tick:g}</text>')
    for share, confidence, right in bins:
        x, y = place(confidence, right)
        told = f"confidence {confidence:.2f}, accuracy {right:.2f}, {100 * share:.0f} % of pictures"
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + 16 * share**0.5:.1f}" fill="var(--{colour})" opacity=".75">'
            f"<title>{told}</title></circle>"
        )
    marks.append(f'<text class="middle" x="{edge + side / 2}" y="{low[1] + 32}">confidence</text>')
    return f'<svg viewBox="0 0 {side + edge + 16} {side + 46}" role="img">{"".join(marks)}</svg>'
