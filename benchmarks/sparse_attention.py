"""Sparse attention beside fewer steps and scheduled forecasts on the pocket `wan-long`, at the time that each takes.

    make bench-sparse-attention   # or: python benchmarks/sparse_attention.py [--prompts COUNT] [--at-most COUNT]

Densities are calibrated first, on calibration prompts. Then every held-out prompt is made plainly and in every other
way, one after the other in one process on one thread; time is that of the process, so that others count for little.
What was made is kept prompt by prompt in benchmarks/results/sparse_attention.json, so that a run that was stopped goes
on; --at-most bounds how many prompts one run adds. Writes docs/results_sparse_attention.md.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks.by_prompt import asked, known
from outpace.accel import AdaSpa, Method, ScheduledTaylor, StaticSparsity, accelerate
from outpace.accel.calibration.attention import AttentionCalibration
from outpace.accel.patterns import PATTERNS
from outpace.evaluation.atomic import write_json
from outpace.evaluation.environment import environment
from outpace.evaluation.pareto import at_speedup
from outpace.files import write_text
from outpace.pipelines import POCKETS, load_pocket

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "sparse_attention.json"
PAGE = ROOT / "docs" / "results_sparse_attention.md"
POCKET, STEPS, PROMPTS = "wan-long", 20, 16
CALIBRATION_PROMPTS, TRIALS, FIRST_SEED = 1, 2, 500
SAVES = (0.4, 0.5)
FEW = 1
"""Prompts on which what is far behind is made."""

Way = tuple[int, tuple[Method, ...]]
"""Steps, and the methods."""


def calibrate(pipe: Any, prompts: Sequence[str], call: dict[str, Any]) -> dict[str, str]:
    """The calibrated schedules by what they save, and the share of the steps that is dense before them."""
    calibration = AttentionCalibration(trials=TRIALS, call={**call, "num_inference_steps": STEPS})
    begin = time.process_time()
    bench = calibration.bench(pipe, prompts)
    found: dict[str, Any] = {"prompts": list(prompts), "methods": {}}
    for saves in SAVES:
        method = bench.saving(saves)
        found["methods"][f"{saves:g}"] = method.to_dict() | {"psnr": bench.psnr(method)}
        print(f"saves {saves:g}: dense {method.searches}, {bench.psnr(method):.2f} dB", file=sys.stderr, flush=True)
    alone = [
        {"first": one[0], "last": one[1], "psnr": psnr} for one, psnr in zip(bench.table.bins, bench.alone, strict=True)
    ]
    found |= {"alone": alone, "levels": bench.table.levels}
    found |= {"runs": bench.runs, "seconds": time.process_time() - begin}
    return found


def ways(calibration: dict[str, Any]) -> dict[str, tuple[Way, int]]:
    """Every way to make a clip, with the number of prompts that it is tried on."""
    found = {
        saves: Method.from_dict({key: value for key, value in data.items() if key != "psnr"})
        for saves, data in calibration["methods"].items()
    }
    blocks: dict[str, Any] = {"block": (128, 64), "slack": 0.0, "min_gain": 0.0}
    density = 0.5
    rivals: dict[str, Way] = {
        f"{pattern.label}, density {density:g}": (
            STEPS,
            (StaticSparsity(pattern=name, density=density, block=(128, 64), min_gain=0.0),),
        )
        for name, pattern in PATTERNS.items()
    }
    rivals["AdaSpa, the paper's rule"] = (STEPS, (replace(AdaSpa.paper(0.5), block=(128, 64)),))
    # In the order of what they tell, for a run that is stopped.
    main: dict[str, Way] = {
        "plain": (STEPS, ()),
        "AdaSpa, calibrated, saves 0.5": (STEPS, (found["0.5"],)),
        "13 steps": (13, ()),
        "AdaSpa, recall 0.98": (STEPS, (AdaSpa(recall=0.98, **blocks),)),
        "scheduled 1.54": (STEPS, (ScheduledTaylor(speedup=1.54),)),
        "16 steps": (16, ()),
        "AdaSpa, calibrated, saves 0.4": (STEPS, (found["0.4"],)),
        "scheduled 1.25": (STEPS, (ScheduledTaylor(speedup=1.25),)),
        "scheduled 1.54 with AdaSpa, calibrated, saves 0.5": (STEPS, (ScheduledTaylor(speedup=1.54), found["0.5"])),
        "10 steps": (10, ()),
        "scheduled 2": (STEPS, (ScheduledTaylor(speedup=2.0),)),
    }
    found_on = {name: (way, FEW) for name, way in rivals.items()}
    return {name: (way, PROMPTS) for name, way in main.items()} | found_on


def clip(pipe: Any, prompt: str, seed: int, way: Way, call: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """One clip, the process time that it took, and what attention did."""
    steps, methods = way
    given = {**call, "num_inference_steps": steps, "output_type": "np"}

    def make() -> np.ndarray:
        return np.asarray(pipe(prompt, generator=torch.Generator().manual_seed(seed), **given).frames[0])

    begin = time.process_time()
    if not methods:
        return make(), {"seconds": time.process_time() - begin}
    with accelerate(pipe, *methods) as run:
        begin = time.process_time()
        made = make()
        facts: dict[str, Any] = {"seconds": time.process_time() - begin}
    record = run.trace.attention
    if record is not None:
        totals = record.totals()
        facts |= {name: totals[name] for name in ("work", "density", "recall")} | {"timed": dict(record.seconds)}
    return made, facts


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one.astype(np.float64) - other) ** 2)))


def measure(
    pipe: Any,
    prompt: str,
    seed: int,
    every: dict[str, Way],
    call: dict[str, Any],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """All ways on one prompt, against the plain clip; `keep` is given what is known after each."""
    found: dict[str, Any] = {}
    plain = None
    for name, way in every.items():
        made, facts = clip(pipe, prompt, seed, way, call)
        plain = made if plain is None else plain
        found[name] = facts | ({} if name == "plain" else {"psnr": psnr(made, plain)})
        print(f"  {name}: {facts['seconds']:.1f} s, {found[name].get('psnr', 0):.2f} dB", file=sys.stderr, flush=True)
        keep(found)


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every way over its prompts: speed-ups are medians of ratios within a prompt."""
    made: dict[str, list[tuple[dict[str, Any], float]]] = {}
    for one in report["prompts"].values():
        for name, facts in one.items():
            made.setdefault(name, []).append((facts, one["plain"]["seconds"] / facts["seconds"]))
    found = []
    for name, held in made.items():
        if name == "plain":
            continue
        values = [facts["psnr"] for facts, _ in held]
        works = [facts["work"] for facts, _ in held if facts.get("work") is not None]
        found.append(
            {
                "name": name,
                "prompts": len(held),
                "psnr": fmean(values),
                "spread": stdev(values) if len(values) > 1 else 0.0,
                "speedup": median(ratio for _, ratio in held),
                "work": fmean(works) if works else None,
            }
        )
    return sorted(found, key=lambda row: row["speedup"])


def page(report: dict[str, Any]) -> str:
    """docs/results_sparse_attention.md."""
    table, prompts = rows(report), report["prompts"]
    fewer = [row for row in table if row["name"].endswith("steps")]
    scheduled = [row for row in table if row["name"].startswith("scheduled") and "AdaSpa" not in row["name"]]
    lines = [
        "# Sparse attention beside fewer steps, at equal time",
        "",
        "Written by `python benchmarks/sparse_attention.py`; nothing here is typed in. How it works: "
        "[sparse attention](sparse_attention.md).",
        "",
        f"Pocket `{POCKET}`: 4352 tokens, {STEPS} steps, {len(prompts)} held-out prompts (fewer where the table "
        "says so), one thread. PSNR against the plain clip, mean and standard deviation; the speed-up is the median of "
        "ratios of process time within a prompt. Work is the share of attention that is computed, searches "
        "counted. The last two columns say what fewer steps and scheduled forecasts have at the same speed-up, on "
        "lines between their points that are straight over the logarithm of the speed-up.",
        "",
        "| | prompts | speed-up | PSNR, dB | attention's work | fewer steps there | scheduled there |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table:
        beside = [
            at_speedup(np.array([p["speedup"] for p in curve]), np.array([p["psnr"] for p in curve]), row["speedup"])
            for curve in (fewer, scheduled)
        ]
        cells = [
            row["name"],
            str(row["prompts"]),
            f"{row['speedup']:.2f}x",
            f"{row['psnr']:.1f} ± {row['spread']:.1f}",
            "" if row["work"] is None else f"{row['work']:.2f}",
            *("" if math.isnan(value) else f"{value:.1f}" for value in beside),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if not prompts:
        lines[-2:] = ["Not measured on held-out prompts yet; what follows is."]
    lines += ["", "## Calibration", ""]
    calibration = report["calibration"]
    lines += [
        f"{len(calibration['prompts'])} calibration prompts, {calibration['runs']} real runs of them besides the plain "
        f"and the measured one, {calibration['seconds']:.0f} s of processor time. Where one range of noise levels "
        "alone keeps a third of its blocks, every head alike, and everything else is dense:",
        "",
        "| steps | noise levels | PSNR, dB |",
        "| --- | --- | ---: |",
        *(f"| {one['first'] + 1} to {one['last'] + 1} | {calibration['levels'][one['first']]:.2f} to "
          f"{calibration['levels'][one['last']]:.2f} | {one['psnr']:.1f} |" for one in calibration["alone"]),
        "",
        *(f"- saves {saves}: `{data['schedule']}`, dense {data['searches'][0] if 'searches' in data else 0.1:g}"
          for saves, data in calibration["methods"].items()),
        "",
        "## How it was measured",
        "",
        *(f"- {name}: {value}" for name, value in report["environment"].items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    options = asked(__doc__.splitlines()[0], prompts=PROMPTS, result=RESULT, page=PAGE)
    torch.set_num_threads(1)
    report = known(options.result)
    pocket, pipe = POCKETS[POCKET], load_pocket(POCKET)
    pipe.set_progress_bar_config(disable=True)
    if "calibration" not in report:
        report["calibration"] = calibrate(pipe, pocket.prompts(CALIBRATION_PROMPTS, "calibration"), pocket.call)
        write_json(options.result, report)
    every, added = ways(report["calibration"]), 0
    for place, prompt in enumerate(pocket.prompts(options.prompts, "held_out")):
        if prompt in report["prompts"] or added >= options.at_most:
            continue
        print(prompt, file=sys.stderr, flush=True)
        chosen = {name: way for name, (way, most) in every.items() if place < most}

        def keep(found: dict[str, Any], prompt: str = prompt) -> None:
            report["prompts"][prompt] = found
            report.update(command="python benchmarks/sparse_attention.py", environment=environment())
            write_json(options.result, report)

        measure(pipe, prompt, FIRST_SEED + place, chosen, pocket.call, keep)
        added += 1
    report.setdefault("environment", environment())
    write_text(options.page, page(report))


if __name__ == "__main__":
    main()
