"""What `benchmarks/schedules.py` publishes: the tables of schedules.md."""

from __future__ import annotations

from statistics import fmean
from typing import Any

CALIBRATED, HELD_OUT, HARD = 8, 64, 16
"""Prompts: to calibrate with, and fresh ones of mapped and of hardness."""

STEPS, SPEEDUP, COST = (50, 40, 28), 4.0, 40.0
"""Calibrated at the first of `STEPS`; `COST` in plain runs of one prompt."""

EXPONENTS, ORDERS, REPLAYS, DIALS = (1.0, 1.4, 1.8), (0.0, 1.0, 2.0), (0.0, 1.0, 2.0), (2.0, 3.0, 4.0, 4.7)

WITHIN = 1.5
"""How near the dial was meant to come to the best power schedule, in dB."""

FASTER = (2.5, 3.0, 4.0, 5.0)
"""Speed-ups at which forecasts miss."""

EARLY, GAPS = (1.0, 1.2, 1.4, 1.8, 2.2), (1, 2, 3, 4, 5)
"""Exponents, and lengths of the first gap, in steps."""


def best_power(row: dict[str, Any]) -> dict[str, Any]:
    """The power schedule of the highest mean, found on the prompts that it is shown for."""
    return max(row["power"], key=lambda one: one["mean"])


def page(held: dict[str, Any]) -> str:
    def cell(row: dict[str, Any], key: str) -> str:
        return f"{row[key]['mean']:.1f} ({row[key]['worst']:.1f})"

    lines = [
        "# Schedules at other numbers of steps, and by sample",
        "",
        "Made by `make bench-schedules`. PSNR in dB to the plain pipeline at the same steps, mean (worst).",
        "",
        f"## Calibrated at 50 steps and {SPEEDUP:g}x, used at others",
        "",
        f"{CALIBRATED} prompts to calibrate with, {HELD_OUT} fresh ones; cost in plain runs of one prompt. Calibration",
        "gains more over steps laid online on the prompts that it has seen: what of that fresh ones lose.",
        "",
        "| | steps | cost | its prompts: online, calibrated | fresh ones: online, calibrated | lost on fresh ones | "
        "mapped from 50 | lost by it |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {r['pipeline']} | {r['steps']} | {r['cost']:.0f} | {r['online there']['mean']:.1f}, "
            f"{r['own there']['mean']:.1f} | {cell(r, 'online')}, {cell(r, 'own')} | {overfit(r):.1f} | "
            f"{cell(r, 'mapped')} | "
            + ("|" if r["steps"] == STEPS[0] else f"{r['own']['mean'] - r['mapped']['mean']:.1f} |")
            for r in held["mapped"]
        ),
        *fresh_ones(held["mapped"]),
        "",
        "## More steps for harder samples, at equal work",
        "",
        "28 steps, laid online. A third of the samples gets one computed step more and a third one less, chosen by how",
        "far off forecasts proved in the first half of their run; the other way round; at random; by the pictures that",
        "come out, which nobody has beforehand. Correlation: of those errors with PSNR, -1 where they told all of it.",
        "",
        "| | computed | equal for all | by errors | reversed | at random | by the pictures | correlation |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {r['pipeline']} | {r['computed']} | "
            + " | ".join(cell(r, key) for key in ("equal", "harder", "reversed", "drawn", "known"))
            + f" | {r['correlation']:.2f} |"
            for r in held["hardness"]
        ),
        "",
        *gains(held["hardness"]),
        *beside_power(held.get("power", [])),
        *by_early(held.get("early", [])),
        *by_misses(held.get("misses", [])),
        *by_first(held.get("first", [])),
    ]
    return "\n".join(lines) + "\n"


def overfit(row: dict[str, Any]) -> float:
    """By how much calibration gains less over steps laid online on fresh prompts than on those that it has seen."""
    return (row["own there"]["mean"] - row["online there"]["mean"]) - (row["own"]["mean"] - row["online"]["mean"])


def fresh_ones(rows: list[dict[str, Any]]) -> list[str]:
    """The first table in a sentence."""
    others = [row for row in rows if row["steps"] != STEPS[0]]
    if not others:
        return []

    def apart(rows: list[dict[str, Any]], one: str, other: str) -> float:
        return fmean(row[one]["mean"] - row[other]["mean"] for row in rows)

    return [
        "",
        f"On average calibration gains {apart(rows, 'own there', 'online there'):.1f} dB on the prompts that it has "
        f"seen and {apart(rows, 'own', 'online'):.1f} dB on fresh ones, {fmean(map(overfit, rows)):.1f} dB less; fresh "
        f"ones are {apart(rows, 'online there', 'online'):.1f} dB harder. Mapping costs "
        f"{apart(others, 'own', 'mapped'):.1f} dB.",
    ]


def beside_power(rows: list[dict[str, Any]]) -> list[str]:
    """The third table; nothing where it was not measured."""
    if not rows:
        return []
    lines = [
        "",
        "## Laid online, beside power schedules of equal work",
        "",
        f"The best of {len(EXPONENTS) * len(ORDERS) * len(REPLAYS)} power schedules (exponents "
        f"{', '.join(f'{s:g}' for s in EXPONENTS)}, orders 0 to 2, replay 1, 2 or none) is the best on the very",
        "prompts that it is shown for, which flatters it; how far it is above what is laid online is the last column.",
        "",
        "| | steps | speed-up | prompts | laid online | best power schedule | exponent, order, replay | behind |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in rows:
        best, online = best_power(row), row["online"]
        cells = (
            row["pipeline"],
            f"{row['steps']}",
            f"{row['speedup']:g}x",
            f"{row['prompts']}",
            *(f"{one['mean']:.1f} ({one['worst']:.1f})" for one in (online, best)),
            f"{best['early']:g}, {best['order']:g}, {best['replay']:g}",
            f"{best['mean'] - online['mean']:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    behind = [best_power(row)["mean"] - row["online"]["mean"] for row in rows]
    most = rows[behind.index(max(behind))]
    return [
        *lines,
        "",
        f"Within {WITHIN:g} dB of it in {sum(one <= WITHIN for one in behind)} of {len(rows)} rows, {fmean(behind):.1f}"
        f" dB behind on average and most on {most['pipeline']} at {most['steps']} steps and {most['speedup']:g}x "
        f"({max(behind):.1f} dB).",
    ]


def by_early(rows: list[dict[str, Any]]) -> list[str]:
    """How dense early, by guidance; nothing where it was not measured."""
    if not rows:
        return []
    lines = [
        "",
        "## How dense early, by guidance",
        "",
        f"Mean (worst) over {', '.join(f'{dial:g}' for dial in DIALS)}x on calibration prompts, orders and replay as",
        "measured online: laid online, and at step N (k / K)^s.",
        "",
        f"| | guidance | steps | laid online | {' | '.join(f's = {exponent:g}' for exponent in EARLY)} |",
        "| --- | ---: | ---: | ---: |" + " ---: |" * len(EARLY),
    ]
    for row in rows:
        keys = ("online", *(f"{s:g}" for s in EARLY))
        cells = (f"{row[key]['mean']:.1f} ({row[key]['worst']:.1f})" if key in row else "" for key in keys)
        lines.append(f"| {row['pipeline']} | {row['guidance']:g} | {row['steps']} | {' | '.join(cells)} |")
    return lines


def by_misses(rows: list[dict[str, Any]]) -> list[str]:
    """What follows from a forecast that missed by much; nothing where it was not measured."""
    if not rows:
        return []
    lines = [
        "",
        "## Where forecasts miss by much",
        "",
        "Laid online without and with what follows from it (a shorter gap, denser early), mean (worst) on calibration",
        "prompts.",
        "",
        f"| | guidance | steps | {' | '.join(f'{speedup:g}x' for speedup in FASTER)} |",
        "| --- | ---: | ---: |" + " ---: |" * len(FASTER),
    ]
    for row in rows:
        pairs = [
            ", ".join(f"{one['mean']:.1f} ({one['worst']:.1f})" for one in (row["without"][place], row["with"][place]))
            for place in range(len(FASTER))
        ]
        lines.append(f"| {row['pipeline']} | {row['guidance']:g} | {row['steps']} | {' | '.join(pairs)} |")
    return lines


def by_first(rows: list[dict[str, Any]]) -> list[str]:
    """The fourth table; nothing where it was not measured."""
    if not rows:
        return []
    lines = [
        "",
        "## By the first gap",
        "",
        "28 steps; the second computed step lies so many steps behind the first, the others evenly behind it.",
        "Calibration prompts; orders and replay as measured online.",
        "",
        f"| | speed-up | prompts | laid online | {' | '.join(map(str, GAPS))} |",
        "| --- | ---: | ---: | ---: |" + " ---: |" * len(GAPS),
    ]
    for row in rows:
        by_gap = {one["gap"]: f"{one['mean']:.1f} ({one['worst']:.1f})" for one in row["first"]}
        cells = (
            row["pipeline"],
            f"{row['speedup']:g}x",
            f"{row['prompts']}",
            f"{row['online']['mean']:.1f} ({row['online']['worst']:.1f})",
            *(by_gap.get(gap, "") for gap in GAPS),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def gains(rows: list[dict[str, Any]]) -> list[str]:
    """The second table in sentences."""
    if not rows:
        return []
    told = []
    for key, words in (("harder", "By errors"), ("drawn", "at random"), ("known", "by the pictures")):
        mean, worst = (fmean(r[key][what] - r["equal"][what] for r in rows) for what in ("mean", "worst"))
        told.append(f"{words} {mean:+.2f} dB on average and {worst:+.2f} dB in the worst sample")
    return [
        f"Against equal steps for all: {'; '.join(told)}.",
        f"Errors differ between samples by {fmean(r['spread_of_errors'] for r in rows):.1f} dB (one standard "
        f"deviation), their pictures by {fmean(r['spread_of_pictures'] for r in rows):.1f} dB.",
    ]
