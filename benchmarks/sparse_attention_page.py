"""What `benchmarks/sparse_attention.py` publishes: tables at equal time, where it would be even, and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np

from outpace.accel.attention.watch import ASKED
from outpace.evaluation.pareto import at_quality, at_speedup

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "sparse_attention.json"
PAGE = ROOT / "docs" / "results_sparse_attention.md"
KERNELS = ROOT / "benchmarks" / "results" / "attention_cpu.json"
POCKET, STEPS = "wan-long", 12
WIDTH = 32
"""Of a head."""
ALONE = "AdaSpa, recall 0.99"
CONVERGED = 48
"""Steps of a second-order solver that stand for the converged clip."""
SAVES = (0.4, 0.28)
"""Of all attention, what is calibrated to be left out: much, and as little as makes a forecast 1.5 times as fast."""

Made = dict[str, dict[str, Any]]
"""What was measured, by prompt and way."""


def rows(made: Made) -> list[dict[str, Any]]:
    """Every way over its prompts: speed-ups are medians of ratios within a prompt."""
    by_way: dict[str, list[dict[str, Any]]] = {}
    for one in made.values():
        for name, facts in one.items():
            if name != "plain":
                by_way.setdefault(name, []).append(facts)
    found = []
    for name, held in by_way.items():
        values = [facts["psnr"] for facts in held]
        works = [facts["work"] for facts in held if facts.get("work") is not None]
        solved = [facts["converged"] for facts in held if "converged" in facts]
        found.append(
            {
                "name": name,
                "prompts": len(held),
                "psnr": fmean(values),
                "spread": stdev(values) if len(values) > 1 else 0.0,
                "speedup": median(facts["speedup"] for facts in held),
                "work": fmean(works) if works else None,
                "converged": fmean(solved) if solved else None,
            }
        )
    return sorted(found, key=lambda row: row["speedup"])


CURVES: dict[str, Callable[[str], bool]] = {
    "fewer steps": lambda name: name.endswith("steps"),
    "scheduled": lambda name: name.startswith("scheduled") and "AdaSpa" not in name,
}
"""What every way stands beside, by whether a way is of it."""


def beside(
    made: Made, table: list[dict[str, Any]], row: dict[str, Any], of: Callable[[str], bool], towards: str = "psnr"
) -> list[float]:
    """By how many dB a way is ahead of a curve at its own speed-up, prompt by prompt; empty where the curve ends.

    Args:
        towards: "psnr" for the plain clip, "converged".
    """
    curve = {one["name"]: one["speedup"] for one in table if of(one["name"])}
    found = []
    for one in made.values():
        if all(towards in one.get(name, {}) for name in (row["name"], *curve)):
            qualities = np.array([one[name][towards] for name in curve])
            there = at_speedup(np.array(list(curve.values())), qualities, row["speedup"])
            found += [] if math.isnan(there) else [one[row["name"]][towards] - there]
    return found


def ahead(differences: list[float]) -> str:
    """Differences in dB as mean, standard error and on how many prompts they are above 0."""
    if not differences:
        return ""
    error = f" ± {stdev(differences) / len(differences) ** 0.5:.1f}" if len(differences) > 1 else ""
    return f"{fmean(differences):+.1f}{error} ({sum(d > 0 for d in differences)} of {len(differences)})"


def table_of(made: Made, towards: str = "psnr") -> list[str]:
    """Every way towards the plain clip, or the converged one."""
    table = rows(made)
    lines = [
        "| | prompts | speed-up | PSNR, dB | attention's work | beside fewer steps, dB | beside scheduled, dB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table:
        values = [facts[towards] for one in made.values() if towards in (facts := one.get(row["name"], {}))]
        if not values:
            continue
        sides = [ahead(beside(made, table, row, of, towards)) if not of(row["name"]) else "" for of in CURVES.values()]
        cells = [
            row["name"],
            str(len(values)),
            f"{row['speedup']:.2f}x",
            f"{fmean(values):.1f} ± {stdev(values) if len(values) > 1 else 0.0:.1f}",
            "" if row["work"] is None else f"{row['work']:.2f}",
            *sides,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def together(made: Made) -> list[str]:
    """What docs/sparse_attention.md shows: sparse attention alone and on forecasts, towards either clip."""
    table = rows(made)
    columns = [(rival, towards) for towards in ("psnr", "converged") for rival in CURVES]
    names = [f"beside {rival}" + (", converged" if towards != "psnr" else "") for rival, towards in columns]
    lines = [f"| | speed-up | {' | '.join(names)} |", f"| --- | ---: |{' ---: |' * len(names)}"]
    for row in table:
        if " with " in row["name"] or row["name"].startswith("AdaSpa, calibrated") or row["name"] == ALONE:
            cells = [ahead(beside(made, table, row, CURVES[rival], towards)) for rival, towards in columns]
            lines.append(f"| {row['name']} | {row['speedup']:.2f}x | {' | '.join(cells)} |")
    return lines


def even(share: float, needed: float, saved: float) -> tuple[float, float]:
    """From where on a way is as fast as a rival of equal fidelity: (share of attention in the time, of it to be saved).

    Args:
        share: of attention in the plain time.
        needed: the rival's speed-up at the way's fidelity.
        saved: share of attention's time that the way saves.
    """
    gone = 1.0 - 1.0 / needed
    return gone / saved, gone / share


def as_close(made: Made, row: dict[str, Any]) -> dict[str, float]:
    """How fast a rival is where it comes as close to the plain clip as a way, on its prompts; only those that do."""
    found, table = {}, rows({prompt: one for prompt, one in made.items() if row["name"] in one})
    for rival, of in CURVES.items():
        curve = [one for one in table if of(one["name"])]
        if not curve:
            continue
        speedups, qualities = (np.array([one[key] for one in curve]) for key in ("speedup", "psnr"))
        speedup = at_quality(speedups, qualities, row["psnr"])
        if math.isfinite(speedup) and speedup > 1.0:
            found[rival] = speedup
    return found


def break_even(made: Made, share: float, tokens: int) -> list[str]:
    """Where sparse attention alone would be even with each rival at its own fidelity."""
    lines = []
    for row in rows(made):
        if row["work"] is None or "with" in row["name"]:
            continue
        saved = (1.0 - 1.0 / row["speedup"]) / share
        for rival, needed in as_close(made, row).items() if saved > 0.0 else ():
            least, most = even(share, needed, saved)
            longer = tokens * (least / (1 - least)) / (share / (1 - share)) if least < 1 else math.inf
            lines.append(
                f"| {row['name']} | {rival} | {needed:.2f}x | {saved:.2f} | {most:.2f} | "
                f"{f'{least:.2f}, {longer:.0f} tokens' if least < 1 else 'never'} |"
            )
    return lines


def overhead(made: Made, share: float, tokens: int) -> list[str]:
    """What searching and watching take beside what is saved, in dense calls of the whole attention."""
    row = next((row for row in rows(made) if row["name"] == ALONE), None)
    if row is None or row["speedup"] <= 1.0:
        return []
    cases = json.loads(KERNELS.read_text(encoding="utf-8"))["cases"]
    search = next(c["search_of_dense"] for c in cases if (c["tokens"], c["width"], c["threads"]) == (tokens, WIDTH, 1))
    sparse = STEPS - max(1, round(0.1 * STEPS))
    watch = ASKED / tokens * sparse
    saved = (1.0 - 1.0 / row["speedup"]) / share * STEPS
    return [
        f"A search takes {search:.2f} of a dense call beyond the one it stands for "
        "([kernels](../benchmarks/results/attention_cpu.md)). Watching the recall, which is switched off here, attends "
        f"to {ASKED} of {tokens} queries densely at {sparse} sparse steps: {watch:.2f} of a dense call. {ALONE} saves "
        f"{saved:.1f} of the {STEPS} dense calls of a run, so that both are {(search + watch) / saved:.0%} of what is "
        "saved, and less in longer runs and videos.",
        "",
    ]


def told(method: dict[str, Any]) -> str:
    """A method of a calibration in short."""
    what = f"`{method['schedule']}`" if method.get("schedule") else f"recall {method['recall']:.4g}"
    return f"{what}, dense {method['searches'][0] if 'searches' in method else 0.1:g}"


def calibrated(calibrations: dict[str, Any]) -> list[str]:
    """What calibration prompts told, and what was tried on them to leave out each share of attention."""
    first = calibrations[f"{SAVES[0]:g}"]
    lines = [
        "## Calibration",
        "",
        f"{len(first['prompts'])} calibration prompts. Where one range of noise levels alone keeps a third of its "
        "blocks, every head alike, and everything else is dense:",
        "",
        "| steps | noise levels | PSNR, dB |",
        "| --- | --- | ---: |",
        *(f"| {one['first'] + 1} to {one['last'] + 1} | {first['levels'][one['first']]:.2f} to "
          f"{first['levels'][one['last']]:.2f} | {one['psnr']:.1f} |" for one in first["alone"]),
        "",
    ]  # fmt: skip
    for saves in SAVES:
        one = calibrations[f"{saves:g}"]
        name = "calibrated" if saves == SAVES[0] else f"calibrated, saves {saves:g}"
        lines += [
            f"What was tried to leave out {saves:.0%} of all attention: densities that were planned, and one recall "
            f"for everything until it leaves out as much ({one['runs']} real runs of the prompts besides the plain and "
            f"the measured one, {one['seconds']:.0f} s of processor time).",
            "",
            "| | left out | PSNR, dB |",
            "| --- | ---: | ---: |",
            *(f"| {told(tried)} | {tried['saved']:.2f} | {tried['psnr']:.1f} |" for tried in one["tried"]),
            "",
            f"Chosen, and called *{name}* above: {told(one['method'])}.",
            "",
        ]
    return lines


def page(report: dict[str, Any]) -> str:
    """docs/results_sparse_attention.md."""
    made: Made = {prompt: one for prompt, one in report["prompts"].items() if "plain" in one and len(one) > 1}
    share, tokens = report["attention_share"], report["tokens"]
    plain = [one["plain"]["converged"] for one in made.values() if "converged" in one["plain"]]
    lines = [
        "# Sparse attention beside fewer steps, at equal time",
        "",
        "Written by `python benchmarks/sparse_attention.py`; nothing here is typed in. How it works: "
        "[sparse attention](sparse_attention.md).",
        "",
        f"Pocket `{POCKET}`: {tokens} tokens, {STEPS} steps, {len(made)} held-out prompts, one thread. Self-attention "
        f"is {100 * share:.0f} % of the time of a plain step. The speed-up is the median of ratios of process time "
        "within a prompt. Work is the share of attention that is computed, searches counted. The last two columns say "
        "by how much a way is ahead of fewer steps and of scheduled forecasts that take as long, on lines between "
        "their points that are straight over the logarithm of the speed-up: mean of the differences within a prompt, "
        "its standard error, and on how many prompts it is ahead. They are empty where the rival was not made as "
        "fast, or as slow.",
        "",
        "## Towards the plain clip",
        "",
        "PSNR against the plain clip of as many steps, mean and standard deviation.",
        "",
        *table_of(made),
        "",
    ]
    if plain:
        lines += [
            "## Towards the converged clip",
            "",
            f"PSNR against {CONVERGED} steps of a second-order solver from the same noise. The plain clip of {STEPS} "
            f"steps is {fmean(plain):.1f} dB from it ({len(plain)} prompts).",
            "",
            *table_of(made, "converged"),
            "",
        ]
    lines += [
        "## Where it would be even",
        "",
        "Sparse attention alone beside a rival that is as close to the plain clip: how fast that rival is; what share "
        "of attention's time the way saves, and would have to save here to be as fast; and from which share of "
        "attention in the plain time on what it saves is enough, with the number of tokens at which this model has "
        "that share (attention grows with their square, the rest with their number).",
        "",
        "| | beside | which is as close at | saves | has to save | is even from |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        *break_even(made, share, tokens),
        "",
        "## What searching takes",
        "",
        *overhead(made, share, tokens),
        *calibrated(report["calibrations"]),
        "## How it was measured",
        "",
        *(f"- {name}: {value}" for name, value in report["environment"].items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
