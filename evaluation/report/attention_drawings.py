"""Drawings of what sparse attention did: a heat map of layers and heads, and curves over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT = 360.0, 46.0, 10.0
"""Of both drawings, in units of their own; so that the page can set them side by side."""
LARGEST, LEAST_HEIGHT = 26.0, 3.0
CURVE_HEIGHT = 104.0


def shade(density: float) -> float:
    """Opacity for a density: finer where little is kept, which is where attention is sparse."""
    return 0.04 + 0.96 * max(0.0, min(1.0, density)) ** 0.5


def percent(share: float, digits: int = 0) -> str:
    """A share in words: 0.234 is "23 %"."""
    return f"{100 * share:.{digits}f} %"


def heat_map(contender: dict[str, Any]) -> str:
    """Layers from left to right, heads from top to bottom; the darker, the more blocks are kept."""
    attention = contender["attention"]
    layers, heads = attention["layers"], max((len(row) for row in attention["density"] if row), default=1)
    wide = min(LARGEST, (WIDTH - LEFT - RIGHT) / len(layers))
    high = max(LEAST_HEIGHT, min(wide, LARGEST, 320.0 / heads))
    top, names = 4.0, layer_names(layers)
    parts = []
    for place, (name, density) in enumerate(zip(layers, attention["density"], strict=True)):
        recall, least, dense = (attention[key][place] for key in ("recall", "least", "dense"))
        for head in range(heads):
            css, style = "cell", ""
            if density is None:
                css, words = "cell none", f"layer {name}: never searched, dense throughout"
            elif dense == 1:
                css, words = "cell stays", f"layer {name}: too little to leave out, stays dense"
            else:
                style = f' style="fill-opacity:{shade(density[head]):.3f}"'
                words = f"layer {name}, head {head}: {percent(density[head])} of the blocks kept"
                if recall is not None:
                    words += f", {percent(recall[head], 1)} of the mass"
                if least is not None:
                    words += f" (row with the least {percent(least[head], 1)})"
                if dense:
                    words += f"; {percent(dense)} of its searches left it dense"
            parts.append(
                f'<rect class="{css}"{style} x="{LEFT + place * wide:.2f}" y="{top + head * high:.2f}" '
                f'width="{wide - gap(wide):.2f}" height="{high - gap(high):.2f}"><title>{escape(words)}</title></rect>'
            )
    floor = top + heads * high
    for head in evenly(heads, room=heads * high, least=14.0):
        parts.append(text(LEFT - 6, top + (head + 0.5) * high + 4, str(head), "tick end"))
    for place in evenly(len(layers), room=len(layers) * wide, least=22.0):
        short = names[place] if len(names[place]) <= 4 else str(place)
        parts.append(text(LEFT + (place + 0.5) * wide, floor + 14, short, "tick middle"))
    parts.append(text(LEFT + len(layers) * wide / 2, floor + 30, "layer", "name middle"))
    parts.append(
        f'<text class="name middle" transform="translate(12 {top + heads * high / 2:.1f}) rotate(-90)">head</text>'
    )
    label = f"Density of attention by layer and head, {contender['label']}"
    return svg(floor + 36, label, parts, least=70.0 if heads * high < 30 else 0.0)


def layer_names(layers: Sequence[str]) -> list[str]:
    """Layers as people count them: the number of the block where that tells them apart."""
    numbers = [name.split(".")[0] for name in layers]
    return numbers if len(set(numbers)) == len(numbers) else list(layers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """What a curve over the steps shows, the same for every contender."""

    name: str
    """Beside the axis."""
    mean: str
    """Which entry of a step is drawn as the line, and"""
    extreme: str
    """which one as the faint one."""
    words: str
    """A step in words, with {mean} and {extreme} in it."""
    low: float
    high: float
    share: bool = False
    """Told in per cent."""

    def told(self, value: float, digits: int = 3) -> str:
        return percent(value, 1 if digits > 2 else 0) if self.share else f"{value:.{digits}g}"


def step_curve(contender: dict[str, Any], axis: Axis, steps: int) -> str:
    """One of the curves over the steps, with ticks where was searched."""
    attention = contender["attention"]
    top, floor, edge = 18.0, CURVE_HEIGHT - 32.0, WIDTH - RIGHT

    def x(step: int) -> float:
        return LEFT + (step + 0.5) / steps * (edge - LEFT)

    def y(value: float) -> float:
        return floor - (value - axis.low) / (axis.high - axis.low) * (floor - top)

    parts = [f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{edge}" y2="{floor}"/>']
    for value in (axis.low, axis.high):
        parts.append(text(LEFT - 6, y(value) + 4, axis.told(value, 2), "tick end"))
    parts.append(f'<line class="grid" x1="{LEFT}" y1="{top}" x2="{edge}" y2="{top}"/>')
    for event in attention["searches"]:
        cause = "for drift" if event["cause"] == "drift" else "as planned"
        words = (
            f"step {event['step'] + 1}: {event['count']} searches {cause}, {event['kept']} found enough to leave out"
        )
        css = "search drifted" if event["cause"] == "drift" else "search"
        at = x(event["step"])
        parts.append(
            f'<line class="{css}" x1="{at:.1f}" y1="{top - 8}" x2="{at:.1f}" y2="{floor}">'
            f"<title>{escape(words)}</title></line>"
        )
    for run in stretches(attention, axis.mean):
        for key, css in ((axis.extreme, "curve faint"), (axis.mean, "curve")):
            points = " ".join(f"{x(e['step']):.1f},{y(e[key]):.1f}" for e in run)
            if len(run) > 1:
                parts.append(f'<polyline class="drift {css}" points="{points}"/>')
        for e in run:
            words = axis.words.format(mean=axis.told(e[axis.mean]), extreme=axis.told(e[axis.extreme]))
            parts.append(
                f'<circle class="drift" cx="{x(e["step"]):.1f}" cy="{y(e[axis.mean]):.1f}" r="1.8">'
                f"<title>step {e['step'] + 1}: {escape(words)} of {e['count']} calls</title></circle>"
            )
    for step in (0, *(s for s in (steps // 2, steps - 1) if s > 0)):
        parts.append(text(x(step), floor + 14, str(step + 1), "tick middle"))
    parts.append(text((LEFT + edge) / 2, floor + 29, "step", "name middle"))
    parts.append(
        f'<text class="name middle" transform="translate(12 {(top + floor) / 2:.1f}) rotate(-90)">{axis.name}</text>'
    )
    return svg(CURVE_HEIGHT, f"{axis.name} over the steps, {contender['label']}", parts)


def stretches(attention: dict[str, Any], key: str) -> list[list[dict[str, Any]]]:
    """The steps where `key` was measured, parted at the planned searches, where it starts anew."""
    planned = [e["step"] for e in attention["searches"] if e["cause"] == "schedule"]
    parts: dict[int, list[dict[str, Any]]] = {}
    for entry in attention["drift"]:
        if entry.get(key) is not None:
            parts.setdefault(sum(step <= entry["step"] for step in planned), []).append(entry)
    return list(parts.values())


def evenly(count: int, *, room: float, least: float) -> list[int]:
    """Places of 0..count-1 to name, so that names are `least` apart."""
    stride = max(1, round(0.5 + least * count / max(room, 1e-9)) if least * count > room else 1)
    return list(range(0, count, stride))


def gap(size: float) -> float:
    """Room between cells."""
    return 1.0 if size > 6 else 0.3


def text(x: float, y: float, words: str, css: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def svg(height: float, label: str, parts: Sequence[str], least: float = 0.0) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {max(height, least):.0f}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
