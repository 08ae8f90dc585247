"""A scatter of speed-up against fidelity as inline SVG, drawn by hand: crisp, small, and at home in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ..pareto import Point, front
from .curves import Style
from .verdict import counts_work

LINE_HEIGHT = 16.0
LETTER = 7.6
"""Width of a letter of a label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One contender with its intervals."""

    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float
    title: str
    front: bool
    """On the Pareto front: drawn filled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One curve."""

    label: str
    style: Style
    marks: list[Mark]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Maps data to the picture: x logarithmic, y linear."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 46.0
    right: float = 16.0
    top: float = 14.0
    bottom: float = 44.0

    def x(self, value: float) -> float:
        low, high = (math.log(v) for v in self.x_range)
        share = (math.log(value) - low) / (high - low)
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.top + (high - value) / (high - low) * (self.height - self.top - self.bottom)


@dataclass(slots=True)
class Drawing:
    """Collects SVG elements."""

    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str, style: str = "") -> None:
        extra = f' style="{style}"' if style else ""
        self.parts.append(f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{extra}/>')

    def text(self, x: float, y: float, words: str, css: str, style: str = "") -> None:
        extra = f' style="{style}"' if style else ""
        self.parts.append(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}"{extra}>{escape(words)}</text>')


def lines_of(results: dict[str, Any], reference: str, style_of: dict[str, Style], *, timed: bool = False) -> list[Line]:
    """The curves against `reference`; contenders without a finite mean, and those at the metric's cap, stay out.

    Args:
        timed: over the measured times of those that were timed, instead of what was counted.
    """
    headline = results["study"]["headline"]
    metric = results["metrics"][headline]
    found = []
    for c in results["contenders"]:
        quality = (c.get("metrics") or {}).get(reference, {}).get(headline)
        speed = (c.get("time") or {}).get("wall") if timed else c.get("speedup")
        if not quality or c["kind"] in ("plain", "converged") or not speed:
            continue
        if metric["cap"] is not None and quality["value"] >= metric["cap"]:
            continue
        found.append((c, speed, quality))
    if timed:
        points = [Point(name=c["name"], speedup=speed["value"], quality=q["value"]) for c, speed, q in found]
        best = {point.name for point in front(points)}
    else:
        best = {c["name"] for c, _, _ in found if c["front"].get(reference, False)}
    faster = "as fast" if timed else "less work" if counts_work(results) else "fewer blocks"
    grouped: dict[str, list[Mark]] = {}
    for c, speed, quality in found:
        grouped.setdefault(c["curve"], []).append(
            Mark(
                x=speed["value"],
                x_low=speed["low"],
                x_high=speed["high"],
                y=quality["value"],
                y_low=quality["low"],
                y_high=quality["high"],
                front=c["name"] in best,
                title=f"{c['label']}: {speed['value']:.2f}x {faster}, "
                f"{quality['value']:.1f} {metric['unit']} ({quality['low']:.1f} to {quality['high']:.1f})",
            )
        )
    return [
        Line(label=curve, style=style_of[curve], marks=sorted(marks, key=lambda m: m.x))
        for curve, marks in grouped.items()
    ]


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round values that cover low..high in about `count` steps."""
    raw = max(high - low, 1e-9) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def speed_ticks(low: float, high: float) -> list[float]:
    """Speed-ups people think in."""
    candidates = (0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50)
    return [v for v in candidates if low * 0.999 <= v <= high * 1.001]


def fitted(words: str, room: float) -> str:
    """`words`, cut where they would not fit into `room`."""
    letters = int(room / LETTER)
    return words if len(words) <= letters else words[: letters - 1].rstrip(" ,") + "…"


def spread_labels(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Heights for labels near `wanted`, a line apart, inside low..high; order is kept."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    floor = low
    for i in order:
        placed[i] = max(wanted[i], floor)
        floor = placed[i] + LINE_HEIGHT
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - LINE_HEIGHT
    return placed


def scatter(
    lines: Sequence[Line],
    *,
    width: float,
    height: float,
    y_label: str,
    x_label: str,
    targets: Sequence[float] = (),
    level: tuple[float, str] | None = None,
    direct_labels: bool = True,
) -> str:
    """The plot as one <svg> element.

    Args:
        targets: speed-ups to mark with a line, where curves are compared.
        level: a value with its words, drawn across the plot: how far the plain pipeline itself is.
        direct_labels: name each curve at its end; without, the page's legend does.
    """
    marks = [m for line in lines for m in line.marks]
    if not marks:
        return '<p class="none">Nothing to plot: no contender has a finite mean here.</p>'
    values = [v for m in marks for v in (m.y_low, m.y_high)] + ([level[0]] if level else [])
    pad = max(0.04 * (max(values) - min(values)), 0.5)
    named = [line for line in lines if not line.style.rest]
    if direct_labels:
        height = max(height, LINE_HEIGHT * len(named) + 70)  # every coloured curve has a line for its name
    frame = Frame(
        width=width,
        height=height,
        x_range=(min(1.0, *(m.x_low for m in marks)), max(m.x_high for m in marks) * 1.04),
        y_range=(min(values) - pad, max(values) + pad),
        right=min(max(150.0, LETTER * max((len(line.label) for line in named or lines), default=0) + 12), 0.3 * width)
        if direct_labels
        else 14.0,
    )
    drawing = Drawing()
    draw_axes(drawing, frame, y_label, x_label, targets)
    edge = frame.width - frame.right
    if level:
        y = frame.y(level[0])
        drawing.line(frame.left, y, edge, y, "level")
    draw_front(drawing, frame, [m for m in marks if m.front])
    ends = [frame.y(line.marks[-1].y) for line in named]
    heights = {
        line.label: at
        for line, at in zip(named, spread_labels(ends, frame.top + 6, frame.height - frame.bottom), strict=True)
    }
    for line in sorted(lines, key=lambda line: (not line.style.rest, line.style.ours)):
        rest = " rest" if line.style.rest else ""
        drawing.parts.append(f'<g class="line{rest}" tabindex="0">')
        draw_line(drawing, frame, line)
        if line.style.rest:
            drawing.text(frame.left + 8, frame.top + 12, line.label, "hush")  # shown while the curve is pointed at
        elif direct_labels:
            draw_label(drawing, frame, line, heights[line.label])
        drawing.parts.append("</g>")
    if level:
        drawing.text(frame.left + 6, frame.y(level[0]) - 6, level[1], "note")
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(y_label)} over {escape(x_label)}">' + "".join(drawing.parts) + "</svg>"
    )


def draw_axes(drawing: Drawing, frame: Frame, y_label: str, x_label: str, targets: Sequence[float]) -> None:
    """Grid, ticks and names; the compared speed-ups get a line of their own."""
    edge, floor = frame.width - frame.right, frame.height - frame.bottom
    for value in nice_ticks(*frame.y_range):
        drawing.line(frame.left, frame.y(value), edge, frame.y(value), "grid")
        drawing.text(frame.left - 8, frame.y(value) + 4, f"{value:g}", "tick end")
    named: list[float] = []
    for value in sorted(speed_ticks(*frame.x_range), key=lambda v: v not in targets):  # compared ones get their name
        x = frame.x(value)
        drawing.line(x, frame.top, x, floor, "target" if value in targets else "grid")
        if all(abs(x - other) > 34 for other in named):
            drawing.text(x, floor + 18, f"{value:g}x", "tick middle" + (" strong" if value in targets else ""))
            named.append(x)
    drawing.line(frame.left, floor, edge, floor, "axis")
    drawing.text((frame.left + edge) / 2, frame.height - 6, x_label, "name middle")
    drawing.parts.append(
        f'<text class="name middle" transform="translate(12 {(frame.top + floor) / 2:.1f}) rotate(-90)">'
        f"{escape(y_label)}</text>"
    )


def draw_line(drawing: Drawing, frame: Frame, line: Line) -> None:
    """One curve: its path, its intervals, its points."""
    colour, width = line.style.colour, 2.4 if line.style.ours else 1.4
    if len(line.marks) > 1:
        points = " ".join(f"{frame.x(m.x):.1f},{frame.y(m.y):.1f}" for m in line.marks)
        dash = f";stroke-dasharray:{line.style.dash}" if line.style.dash else ""
        drawing.parts.append(
            f'<polyline class="curve" style="stroke:{colour};stroke-width:{width}{dash}" points="{points}"/>'
        )
    for m in line.marks:
        x, y = frame.x(m.x), frame.y(m.y)
        drawing.line(x, frame.y(m.y_low), x, frame.y(m.y_high), "bar", f"stroke:{colour}")
        drawing.line(frame.x(m.x_low), y, frame.x(m.x_high), y, "bar", f"stroke:{colour}")
        fill = colour if m.front else "var(--page)"
        drawing.parts.append(
            f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="{4.2 if line.style.ours else 3.4}" '
            f'style="fill:{fill};stroke:{colour}"><title>{escape(m.title)}</title></circle>'
        )


def draw_front(drawing: Drawing, frame: Frame, marks: Sequence[Mark]) -> None:
    """The Pareto front as a broad pale line through its points."""
    if len(marks) > 1:
        points = " ".join(f"{frame.x(m.x):.1f},{frame.y(m.y):.1f}" for m in sorted(marks, key=lambda m: m.x))
        drawing.parts.append(f'<polyline class="front" points="{points}"/>')


def draw_label(drawing: Drawing, frame: Frame, line: Line, at: float) -> None:
    """The name of a curve at height `at` beside the plot, and what leads there from its last point."""
    edge, last = frame.width - frame.right, line.marks[-1]
    start, end = frame.x(last.x) + 7, frame.y(last.y)
    drawing.parts.append(
        f'<polyline class="leader" style="stroke:{line.style.colour}" '
        f'points="{start:.1f},{end:.1f} {max(start, edge - 10):.1f},{end:.1f} {edge + 4:.1f},{at:.1f}"/>'
    )
    weight = ";font-weight:650" if line.style.ours else ""
    words = fitted(line.label, frame.right - 8)
    drawing.text(edge + 8, at + 4, words, "label", f"fill:{line.style.colour}{weight}")
