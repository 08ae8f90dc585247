"""What the routers of converted contenders chose: how often each expert, and how unequally over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from .attention_drawings import LEAST_HEIGHT, LEFT, RIGHT, WIDTH, evenly, gap, svg, text

TALLEST = 260.0
LOADS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Relative loads that the legend shows."""
UNEQUAL = (0.0, 0.25, 0.5, 0.75, 1.0)


def load_shade(load: float) -> float:
    """Opacity for a load relative to equal use: unused is blank, four times as often as others is full."""
    return min(1.0, load / 4.0) ** 0.5


def routing_section(results: dict[str, Any]) -> dict[str, Any] | None:
    """All that the section shows, or None where no contender has routers."""
    found = [c for c in results["contenders"] if not c["error"] and c.get("routing")]
    if not found:
        return None
    return {
        "cards": [
            {
                "label": c["label"],
                "curve": c["curve"],
                "load": Markup(table(c, "load", "expert", load_shade, "layer {row}, expert {column}: {value:.2f}x")),
                "steps": Markup(
                    table(c, "unequal", "step", lambda share: share, "layer {row}, step {column}: {value:.0%} unequal")
                ),
                "words": in_words(c["routing"]),
            }
            for c in found
        ],
        "loads": [(load, load_shade(load)) for load in LOADS],
        "unequal": UNEQUAL,
    }


def in_words(routing: dict[str, Any]) -> str:
    """The extremes, and where in time choices are most unequal."""
    loads = [load for row in routing["load"] for load in row]
    unused = sum(load < 0.05 for load in loads)
    third = max(1, len(routing["unequal"][0]) // 3)
    rows = routing["unequal"]
    early, late = (mean([row[:third] for row in rows]), mean([row[-third:] for row in rows]))
    said = (
        f"{len(routing['layers'])} routers, {len(loads)} experts: used {min(loads):.2f} to {max(loads):.2f} times as "
    )
    said += "often as on average"
    if unused:
        said += f", {unused} of them hardly ever"
    return f"{said}. Unequal use: {early:.0%} at high noise, {late:.0%} at low noise."


def mean(rows: Sequence[Sequence[float | None]]) -> float:
    """Of all that is known."""
    known = [value for row in rows for value in row if value is not None]
    return sum(known) / max(1, len(known))


def table(contender: dict[str, Any], key: str, across: str, shade: Any, words: str) -> str:
    """Layers from top to bottom; experts or steps from left to right."""
    rows: Sequence[Sequence[float | None]] = contender["routing"][key]
    names = contender["routing"]["layers"]
    columns = max(map(len, rows))
    wide = (WIDTH - LEFT - RIGHT) / columns
    high = max(LEAST_HEIGHT, min(14.0, TALLEST / len(rows)))
    top = 4.0
    parts = []
    for place, (name, row) in enumerate(zip(names, rows, strict=True)):
        for column, value in enumerate(row):
            if value is None:
                css, style, told = "cell none", "", f"layer {name}, {across} {column + 1}: did not run"
            else:
                css, style = "cell", f' style="fill-opacity:{shade(value):.3f}"'
                told = words.format(row=name, column=column + 1, value=value)
            parts.append(
                f'<rect class="{css}"{style} x="{LEFT + column * wide:.2f}" '
                f'y="{top + place * high:.2f}" width="{wide - gap(wide):.2f}" height="{high - gap(high):.2f}">'
                f"<title>{escape(told)}</title></rect>"
            )
    floor = top + len(rows) * high
    for place in evenly(len(rows), room=len(rows) * high, least=14.0):
        parts.append(text(LEFT - 6, top + (place + 0.5) * high + 4, str(place), "tick end"))
    for column in evenly(columns, room=columns * wide, least=22.0):
        parts.append(text(LEFT + (column + 0.5) * wide, floor + 14, str(column + 1), "tick middle"))
    parts.append(text(LEFT + columns * wide / 2, floor + 30, across, "name middle"))
    middle = top + len(rows) * high / 2
    parts.append(f'<text class="name middle" transform="translate(12 {middle:.1f}) rotate(-90)">router</text>')
    return svg(floor + 36, f"Choices of routers by layer and {across}, {contender['label']}", parts)
