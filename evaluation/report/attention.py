"""What sparse attention left out: for each contender a heat map of layers and heads, a curve of drift, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from markupsafe import Markup

WIDTH, LEFT, RIGHT = 360.0, 46.0, 10.0
"""Of both drawings, in units of their own; so that the page can set them side by side."""
LARGEST, LEAST_HEIGHT = 26.0, 3.0
CURVE_HEIGHT = 104.0
SPOKEN = 4
"""Events of searching that are told in words."""
SHADES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Densities that the legend shows."""


def sparse_contenders(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The contenders whose attention was recorded."""
    return [c for c in results["contenders"] if not c["error"] and c.get("attention")]


def shade(density: float) -> float:
    """Opacity for a density: finer where little is kept, which is where attention is sparse."""
    return 0.04 + 0.96 * max(0.0, min(1.0, density)) ** 0.5


def attention_section(results: dict[str, Any]) -> dict[str, Any] | None:
    """All that the section shows, or None where no contender has sparse attention."""
    found = sparse_contenders(results)
    if not found:
        return None
    steps = max(
        (e["step"] + 1 for c in found for e in (*c["attention"]["drift"], *c["attention"]["searches"])), default=1
    )
    largest = max((e["max"] for c in found for e in c["attention"]["drift"]), default=0.0)
    return {
        "rows": [figures(c) | {"quality": quality_of(results, c)} for c in found],
        "cards": [
            {
                "label": c["label"],
                "curve": c["curve"],
                "heat": Markup(heat_map(c)) if any(c["attention"]["density"]) else None,
                "drift": Markup(drift_curve(c, max(steps, c["steps"]), largest))
                if c["attention"]["searches"]
                else None,
                "words": searches_in_words(c["attention"]),
                "notes": c["attention"]["warnings"],
            }
            for c in found
        ],
        "legend": [(density, shade(density)) for density in SHADES],
        "clocked": any(c["attention"]["seconds"] for c in found),
        "stays": any(dense == 1 for c in found for dense in c["attention"]["dense"]),
        "drifted": any(e["cause"] == "drift" for c in found for e in c["attention"]["searches"]),
    }


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


def layer_names(layers: Sequence[str]) -> list[str]:
    """Layers as people count them: the number of the block where that tells them apart."""
    numbers = [name.split(".")[0] for name in layers]
    return numbers if len(set(numbers)) == len(numbers) else list(layers)


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


def drift_curve(contender: dict[str, Any], steps: int, largest: float) -> str:
    """Mean and largest drift over the steps, on axes that all contenders share; ticks where was searched."""
    attention = contender["attention"]
    top, floor, edge = 18.0, CURVE_HEIGHT - 32.0, WIDTH - RIGHT
    ceiling = max(largest, 1e-3)

    def x(step: int) -> float:
        return LEFT + (step + 0.5) / steps * (edge - LEFT)

    def y(value: float) -> float:
        return floor - value / ceiling * (floor - top)

    parts = [f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{edge}" y2="{floor}"/>']
    for value in (0.0, ceiling):
        parts.append(text(LEFT - 6, y(value) + 4, f"{value:.2g}", "tick end"))
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
    for run in stretches(attention):
        for key, css in (("max", "curve faint"), ("mean", "curve")):
            points = " ".join(f"{x(e['step']):.1f},{y(e[key]):.1f}" for e in run)
            if len(run) > 1:
                parts.append(f'<polyline class="drift {css}" points="{points}"/>')
        for e in run:
            words = f"step {e['step'] + 1}: mean {e['mean']:.3g}, largest {e['max']:.3g} of {e['count']} calls"
            parts.append(
                f'<circle class="drift" cx="{x(e["step"]):.1f}" cy="{y(e["mean"]):.1f}" r="1.8">'
                f"<title>{escape(words)}</title></circle>"
            )
    for step in (0, *(s for s in (steps // 2, steps - 1) if s > 0)):
        parts.append(text(x(step), floor + 14, str(step + 1), "tick middle"))
    parts.append(text((LEFT + edge) / 2, floor + 29, "step", "name middle"))
    parts.append(
        f'<text class="name middle" transform="translate(12 {(top + floor) / 2:.1f}) rotate(-90)">drift</text>'
    )
    return svg(CURVE_HEIGHT, f"Drift of the normaliser over the steps, {contender['label']}", parts)


def stretches(attention: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The steps with a drift, parted at the planned searches, where it starts anew."""
    planned = [e["step"] for e in attention["searches"] if e["cause"] == "schedule"]
    parts: dict[int, list[dict[str, Any]]] = {}
    for entry in attention["drift"]:
        parts.setdefault(sum(step <= entry["step"] for step in planned), []).append(entry)
    return list(parts.values())


def evenly(count: int, *, room: float, least: float) -> list[int]:
    """Places of 0..count-1 to name, so that names are `least` apart."""
    stride = max(1, round(0.5 + least * count / max(room, 1e-9)) if least * count > room else 1)
    return list(range(0, count, stride))


def gap(size: float) -> float:
    """Room between cells."""
    return 1.0 if size > 6 else 0.3


def percent(share: float, digits: int = 0) -> str:
    """A share in words: 0.234 is "23 %"."""
    return f"{100 * share:.{digits}f} %"


def text(x: float, y: float, words: str, css: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def svg(height: float, label: str, parts: Sequence[str], least: float = 0.0) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {max(height, least):.0f}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


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
            parts += [kept, f"{percent(row['work'])} of dense attention's work"]
        if row["searches"]:
            drifted = f", {row['for_drift']:.0f} for drift" if row["for_drift"] else ""
            parts.append(f"{row['searches']:.0f} searches{drifted}")
        if row["stay_dense"]:
            parts.append(f"{row['stay_dense']} of {row['layers']} layers stay dense")
        lines.append(f"{c['label']}: " + "; ".join(parts))
    return lines
