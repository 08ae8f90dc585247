"""What `benchmarks/dense2moe.py` publishes: the results, a page and a picture, from every cell that is kept."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.dense2moe_ways import HELD_PROMPTS, PLANS, SAMPLED_STEPS, WAYS, Plan

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "dense2moe.json"
PHOTO = ROOT / "benchmarks" / "results" / "dense2moe_photo.json"
"""Of `benchmarks/dense2moe_photo.py`."""
PAGE = ROOT / "docs" / "results_dense2moe.md"
PICTURE = ROOT / "docs" / "img" / "dense2moe.png"
SHOWN = 6
"""Held-out prompts in the picture."""


def publish(folder: Path, teacher_of: Callable[[str], dict[str, Any]]) -> None:
    """Write the results, the page and the picture from every cell that is kept.

    Args:
        teacher_of: what the teacher of a pocket reaches itself; asked where the results do not have it.
    """
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"cells": [], "teachers": {}}
    ours = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/cell.json"))]
    kept = list({tuple(one[k] for k in ("pipeline", "way", "seed")): one for one in [*before["cells"], *ours]}.values())
    start = before.get("before", []) + [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/before.json"))
    ]
    start = list({tuple(one[k] for k in ("pipeline", "way", "seed")): one for one in start}.values())
    plans, ways = {plan.pipeline: plan for plan in PLANS}, list(WAYS)
    cells = [one for one in kept if one["pipeline"] in plans and one["steps"] == plans[one["pipeline"]].steps]
    for some in (cells, start):
        some.sort(key=lambda one: (list(plans).index(one["pipeline"]), ways.index(one["way"]), one["seed"]))
    if not cells:
        return
    teachers = {
        pipeline: before["teachers"].get(pipeline) or teacher_of(pipeline)
        for pipeline in {one["pipeline"]: 0 for one in cells}
    }
    write_whole(
        RESULTS, json.dumps({"schema": 1, "teachers": teachers, "before": start, "cells": cells}, indent=1) + "\n"
    )
    page_of()
    draw(cells, folder)


def page_of() -> None:
    """Write the page from the results as they lie there."""
    held = json.loads(RESULTS.read_text(encoding="utf-8"))
    write_whole(PAGE, page(held["cells"], held["teachers"], held.get("before", [])))


def page(cells: list[dict[str, Any]], teachers: dict[str, Any], start: list[dict[str, Any]]) -> str:
    """docs/results_dense2moe.md: every way of every pocket, as it was measured."""
    lines = [
        "# Mixtures of experts and of blocks beside pruning",
        "",
        "Written by `make bench-dense2moe` from benchmarks/results/dense2moe.json; what the ways are: "
        "[Dense2MoE](dense2moe.md).",
        "",
        "All students of a pocket start from the same dense weights and take equally many steps on the same samples of "
        "the same teacher; every weight is trained, on the same losses. The error is the mean squared distance to the "
        f"teacher's output on held-out prompts and noise ({HELD_PROMPTS} prompts, {SAMPLED_STEPS} noise levels each), "
        "as a share of that output's mean square: mean over seeds (least to most). Obeyed is the share of what "
        "held-out prompts ask for that a checker reads off generated pictures. Time is processor time of a call of 8 "
        "samples on one thread, as a share of the dense model's; FLOPs likewise, counted. These pockets are 64 and 96 "
        "wide: what a split layer costs and saves at larger widths stands in benchmarks/results/moe_cpu.md.",
        "",
    ]
    for plan in PLANS:
        ours = [one for one in cells if one["pipeline"] == plan.pipeline]
        if ours:
            lines += section(plan, ours, teachers[plan.pipeline])
            lines += beginnings([one for one in start if one["pipeline"] == plan.pipeline])
    lines += proportions()
    lines += ["![Teacher, mixtures and pruned models on the same prompts and noise](img/dense2moe.png)", ""]
    told = ("device", "torch threads", "system", "python", "torch", "diffusers")
    places: dict[str, list[dict[str, Any]]] = {}
    for one in cells:
        places.setdefault(", ".join(f"{key} {one['environment'][key]}" for key in told), []).append(one)
    for place, some in sorted(places.items()):
        dates, ways = sorted(one["made"] for one in some), dict.fromkeys(WAYS[one["way"]].label for one in some)
        lines.append(f"- {', '.join(ways)}: {place}; made {dates[0]} to {dates[-1]}.")
    return "\n".join(lines) + "\n"


def section(plan: Plan, cells: list[dict[str, Any]], teacher: dict[str, Any]) -> list[str]:
    """One pocket: a table of ways, the ratios that matter, and how routers chose."""
    ways = [way for way in WAYS if any(one["way"] == way for one in cells)]
    names = list(teacher["accuracy"])
    lines = [
        f"## {plan.pipeline}",
        "",
        f"{plan.steps} steps, batch {plan.batch}, seeds {', '.join(map(str, sorted({one['seed'] for one in cells})))}. "
        f"The teacher itself obeys {told_accuracy(teacher['accuracy'])}.",
        "",
        "| way | seeds | parameters used | FLOPs | time | error before training | error after "
        f"| {' | '.join(f'{name} obeyed' for name in names)} | processor seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |" + " ---: |" * (len(names) + 1),
    ]
    for way in ways:
        rows = [one for one in cells if one["way"] == way]
        used = statistics.mean(one["active_parameters"] / one["dense_parameters"] for one in rows)
        flops, took, seconds = (statistics.mean(one[key] for one in rows) for key in ("flops", "time", "seconds"))
        before = statistics.mean(relative(one, "error_before") for one in rows)
        obeyed = [statistics.mean(one["accuracy"][name] for one in rows) for name in names]
        lines.append(
            f"| {WAYS[way].label} | {len(rows)} | {used:.3f} | {flops:.3f} | {took:.2f} | {before:.3g} "
            f"| {spread([relative(one) for one in rows])} | {' | '.join(f'{share:.2f}' for share in obeyed)} "
            f"| {seconds:.0f} |"
        )
    lines.append("")
    for first in WAYS:
        for other in WAYS[first].beside:
            ratios = paired(cells, first, other)
            if ratios:
                lines.append(
                    f"- {WAYS[first].label}: {spread(ratios)} times the error of {WAYS[other].label}, seed by seed "
                    f"({sum(ratio < 1 for ratio in ratios)} of {len(ratios)} seeds below it)."
                )
    for way, kind in WAYS.items():
        times = [one["time_beside"][kind.timed] for one in cells if one["way"] == way and kind.timed]
        if times and kind.timed is not None:
            starts = paired(cells, way, kind.timed, "error_before")
            lines.append(
                f"- {kind.label}: before training {spread(starts)} times the error of {WAYS[kind.timed].label}; a call "
                f"takes {spread(times)} times as long, the two in turns."
            )
    for way in ("moe", "mob"):
        seen = [one["routing"] for one in cells if one["way"] == way and one["routing"]]
        if seen:
            apart, chance = ([one[key] for one in seen] for key in ("noisy_and_clean", "chance"))
            lines.append(
                f"- Routers of {WAYS[way].label} choose differently at high and at low noise: {spread(apart)} of their "
                f"choices differ between the noisiest and the cleanest third, {spread(chance)} between random thirds. "
                f"Load of one choice relative to equal use: {min(one['least_load'] for one in seen):.2f} to "
                f"{max(one['most_load'] for one in seen):.2f}."
            )
    return [*lines, ""]


def beginnings(start: list[dict[str, Any]]) -> list[str]:
    """One pocket before training: a table of what every choice is worth by itself."""
    if not start:
        return []
    lines = [
        "Before training, every way by itself, on the same held-out samples; making it is everything from the dense "
        "weights on, measuring importance and fitting included.",
        "",
        "| way | error before training | times that of width, Taylor | processor seconds to make |",
        "| --- | ---: | ---: | ---: |",
    ]
    for way in [name for name in WAYS if any(one["way"] == name for one in start)]:
        rows = [one for one in start if one["way"] == way]
        ratios = paired(start, way, "taylor", "error_before")
        lines.append(
            f"| {WAYS[way].label} | {spread([relative(one, 'error_before') for one in rows])} "
            f"| {spread(ratios) if ratios else ''} | {statistics.mean(one['seconds'] for one in rows):.0f} |"
        )
    return [*lines, ""]


def proportions() -> list[str]:
    """What whole runs take at widths and numbers of tokens where a layer is most of a call."""
    if not PHOTO.is_file():
        return []
    held = json.loads(PHOTO.read_text(encoding="utf-8"))["measured"]
    lines = [
        "## photo",
        "",
        "256 tokens through 16 blocks of width 256 with guidance, and twins of the same shape of other widths with "
        "random weights, in float32 unless it says bfloat16, nothing trained: processor time beside the dense model, "
        "in turns; of the calls of a run, of whole runs with text encoders and autoencoder, and of whole runs under "
        "the dial. Compiled: both models, block by block. Else is the share of a call's time, dense and converted, "
        "that is neither a matrix product nor attention: norms, activations, rotary embeddings, copies, none of which "
        "are FLOPs.",
        "",
        "| width | way | FLOPs of a call | time of the calls | time as a share of what FLOPs predict | time of a run "
        "| as a share of what FLOPs predict | under the dial | else, dense | else, converted |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    timed = {what: one for what, one in held.items() if what != "error"}
    timed = dict(sorted(timed.items(), key=lambda item: (int(item[0].partition(":")[0]), item[0])))
    for width, one in timed.items():
        for way, flops in one["flops"].items():
            call, run = (one[kind][way]["ratio"] for kind in ("calls", "runs"))
            dial = f"{one['dialled'][way]['ratio']:.3f}" if "dialled" in one else ""
            rest = [f"{one['parts'][name]['else']:.2f}" if "parts" in one else "" for name in ("dense", way)]
            lines.append(
                f"| {width.replace(':', ', ')} | {WAYS[way].label} | {flops:.3f} | {call:.3f} | {call / flops:.2f} "
                f"| {run:.3f} | {run / flops:.2f} | {dial} | {rest[0]} | {rest[1]} |"
            )
    lines.append("")
    for width, one in timed.items():
        dial = ""
        if "dialled" in one:
            dial = f", {one['dialled']['dense']['seconds']:.2f} under `speedup={one['speedup']:g}`"
        lines.append(
            f"- {width.replace(':', ', ')}: a dense run of {one['steps']} steps takes "
            f"{one['runs']['dense']['seconds']:.2f} processor seconds{dial}. {one['environment']['device']}, "
            f"{one['made']}."
        )
    if "error" in held:
        told = ", ".join(
            f"{far:.3g} {WAYS[way].label if way in WAYS else way}" for way, far in held["error"]["error"].items()
        )
        lines.append(f"- Error of `photo` before training, on a held-out prompt: {told}. {held['error']['made']}.")
    return [*lines, ""]


def relative(one: dict[str, Any], key: str = "error") -> float:
    """An error as a share of the mean square of what the teacher says."""
    return one[key] / one["power"]


def paired(cells: list[dict[str, Any]], first: str, other: str, key: str = "error") -> list[float]:
    """Ratio of the errors of two ways for every seed that has both."""
    errors = {(one["way"], one["seed"]): one[key] for one in cells}
    seeds = sorted({seed for way, seed in errors if way == first and (other, seed) in errors})
    return [errors[first, seed] / errors[other, seed] for seed in seeds]


def spread(values: list[float]) -> str:
    """Mean, and the range where there are several."""
    mean = f"{statistics.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g} to {max(values):.3g})"


def told_accuracy(accuracy: dict[str, float]) -> str:
    return ", ".join(f"{value:.2f} of {name}" for name, value in accuracy.items())


def draw(cells: list[dict[str, Any]], folder: Path) -> None:
    """docs/img/dense2moe.png: rows are the teacher and the ways of the first seed, columns held-out prompts.

    Left as it is where pictures of some cell are not kept here.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    import numpy as np

    pipelines = list({one["pipeline"]: 0 for one in cells})
    rows: list[tuple[str, list[Path | None]]] = [("teacher", [folder / f"{p}-teacher.npz" for p in pipelines])]
    first = {(one["pipeline"], one["way"]): one for one in cells if one["seed"] == 0}
    for way in WAYS:
        found = [first.get((pipeline, way)) for pipeline in pipelines]
        if any(found):
            files = [folder / f"{o['pipeline']}-{o['steps']}-0-{way}" / "pictures.npz" if o else None for o in found]
            rows.append((WAYS[way].label, files))
    if not all(file is None or file.is_file() for _, files in rows for file in files):
        return
    columns = SHOWN * len(pipelines)
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.6 + 0.8 * columns, 0.85 * len(rows)), squeeze=False)
    for (label, files), line in zip(rows, axes, strict=True):
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        for place, file in enumerate(files):
            pictures = [] if file is None else list(np.load(file).values())
            for axis, picture in zip(line[place * SHOWN :], pictures, strict=False):
                axis.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    figure.tight_layout(pad=0.3)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


def write_whole(path: Path, text: str) -> None:
    """A reader finds the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
