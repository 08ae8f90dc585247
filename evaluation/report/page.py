"""report.html: the template filled from results, with every picture and style inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from .attention import attention_section
from .attention_drawings import percent
from .curves import styles
from .equal import equal_section
from .first import first_screen
from .matrix import matrix_section
from .pictures import AMPLIFIED, Album, gallery
from .plot import lines_of, scatter
from .routing import routing_section
from .tables import cell_table, contender_table, margin_table, paired_table, stage_table
from .timelines import timelines
from .verdict import memory_in_words, reference_words, span, verdict


def page(results: dict[str, Any], folder: Path) -> str:
    """The whole page as text; it loads nothing from anywhere."""
    environment = Environment(
        loader=PackageLoader(__package__ or __name__, "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["span"] = span
    environment.filters["number"] = number
    environment.filters["memory"] = memory_in_words
    environment.filters["percent"] = lambda value, digits=0: "–" if value is None else percent(value, digits)
    study = results["study"]
    compute = study.get("compute", "blocks")
    style_of = styles(results)
    metric = results["metrics"][study["headline"]]
    panels = [
        {
            "reference": reference,
            "words": reference_words(results, reference),
            "wide": Markup(draw(results, reference, style_of, width=1040, height=430, direct_labels=True)),
            "narrow": Markup(draw(results, reference, style_of, width=380, height=400, direct_labels=False)),
            "cells": cell_table(results, reference),
            "margins": margin_table(results, reference),
            "equal": equal_section(results, reference),
        }
        for reference in study["references"]
    ]
    pair = Album(folder, 320, clips=results["pipeline"]["kind"] == "video", prefix="f")
    first = first_screen(results)
    if first is not None and first["index"] is not None:
        request = next(r for r in results["requests"] if r["index"] == first["index"])
        first |= {"before": pair.picture(first["plain"], first["index"]), "prompt": request["prompt"]}
        first |= {"after": pair.picture(first["name"], first["index"])}
    return environment.get_template("report.html.j2").render(
        first=first,
        first_rules=pair.rules,
        opening={
            "wide": Markup(draw(results, study["plain"], style_of, width=700, height=360, direct_labels=True)),
            "narrow": Markup(draw(results, study["plain"], style_of, width=380, height=250, direct_labels=False)),
        },
        results=results,
        study=study,
        metric=metric,
        pipeline=results["pipeline"],
        verdict=verdict(results),
        styles=style_of,
        panels=panels,
        contenders=contender_table(results),
        paired=paired_table(results),
        stages=stage_table(results),
        not_run=results.get("not_run", []),
        gallery=gallery(results, folder),
        amplified=AMPLIFIED,
        timelines=timelines(results),
        attention=attention_section(results),
        routing=routing_section(results),
        matrix=matrix_section(results),
        compute=compute,
        clock=by_the_clock(results, style_of) if compute == "work" else None,
    )


def draw(results: dict[str, Any], reference: str, style_of: dict[str, Any], **shape: Any) -> str:
    """The plot against one reference; against the converged solution with the plain pipeline's own distance."""
    study = results["study"]
    metric = results["metrics"][study["headline"]]
    level = None
    if reference != study["plain"]:
        plain = next(c for c in results["contenders"] if c["name"] == study["plain"])
        own = plain["metrics"].get(reference, {}).get(study["headline"])
        if own:
            level = (own["value"], f"plain, {plain['steps']} steps, at 1x: {own['value']:.1f} {metric['unit']}")
    return scatter(
        lines_of(results, reference, style_of),
        y_label=f"{metric['label']} in {metric['unit']}, mean with 95 % interval",
        x_label=f"speed-up in computed {study.get('compute', 'blocks')}",
        targets=results["speedups"],
        level=level,
        **shape,
    )


def by_the_clock(results: dict[str, Any], style_of: dict[str, Any]) -> dict[str, Markup] | None:
    """The plot over measured times, wide and narrow; None where fewer than two contenders were timed."""
    lines = lines_of(results, results["study"]["plain"], style_of, timed=True)
    if sum(len(line.marks) for line in lines) < 2:
        return None
    metric = results["metrics"][results["study"]["headline"]]
    shapes = {"wide": (1040, 380, True), "narrow": (380, 360, False)}
    return {
        name: Markup(
            scatter(
                lines,
                y_label=f"{metric['label']} in {metric['unit']}, mean with 95 % interval",
                x_label="times as fast, measured",
                width=width,
                height=height,
                direct_labels=direct,
            )
        )
        for name, (width, height, direct) in shapes.items()
    }


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"
