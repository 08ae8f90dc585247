"""Bricks left out of plain stacks: calibrated schedules beside uniform and random ones of equal work.

    make bench-bricks     # or: python benchmarks/bricks.py [PIPELINE ...] [--prompts N] [--steps N]

Schedules are calibrated on calibration prompts and read on held-out ones, with fewer steps and the gate beside. Writes
benchmarks/results/bricks.json, docs/results_bricks.md and a report a pipeline, docs/reports/bricks-PIPELINE.html; what
was calibrated and every batch stay in out/bench, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

if TYPE_CHECKING:
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Contender

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "bricks.json"
PAGE = ROOT / "docs" / "results_bricks.md"
KEPT = ROOT / "out" / "bench"
COMMAND = "python benchmarks/bricks.py"
OWN = "calibrated"


def schedules(bench: Bench, kept: Path) -> dict[str, dict[str, str]]:
    """Every schedule by kind ("calibrated", "uniform", "random 1" ...) and share of the work; made where not kept."""
    from outpace.cli.contenders.bricks import DRAWS, WORK, calibrated
    from outpace.evaluation.atomic import write_json

    found: dict[str, dict[str, str]] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for work in WORK:
        if f"{work:g}" in found.get(OWN, {}):
            continue
        known = calibrated(bench)
        made = {OWN: known.saving(1.0 - work), "uniform": known.evenly(1.0 - work)}
        made |= {f"random {draw}": known.drawn(1.0 - work, draw) for draw in range(1, DRAWS + 1)}
        for kind, method in made.items():
            found.setdefault(kind, {})[f"{work:g}"] = method.schedule
        found.setdefault("runs", {})[f"{work:g}"] = str(known.runs)
        write_json(kept, found)
        print(f"{kept.stem}: {work:g} of the work after {known.runs} runs: {found[OWN][f'{work:g}']}", flush=True)
    return found


def contenders(bench: Bench, found: dict[str, dict[str, str]]) -> list[Contender]:
    """One for every schedule."""
    from outpace.accel import BrickSkipping
    from outpace.cli.contenders.curve import ours

    made = []
    for kind, by_work in found.items():
        if kind == "runs":
            continue
        for work, schedule in by_work.items():
            made.append(
                ours(
                    bench,
                    f"bricks-{kind}-{work}".replace(" ", "-"),
                    f"bricks, {kind}, {float(work):.0%} of the blocks",
                    "bricks" if kind == OWN else "bricks-rival",
                    f"bricks, {kind}",
                    bench.steps,
                    BrickSkipping(schedule=schedule),
                )
            )
    return made


def measured(pipeline: str, steps: int, prompts: int) -> dict[str, Any]:
    """The comparison of one pipeline, its report in docs/reports, boiled down to what the page tells."""
    from dataclasses import replace

    from outpace.cli.contenders.bricks import SPEEDUPS
    from outpace.cli.contenders.study import build_study, describe
    from outpace.evaluation import build_results, run_study
    from outpace.evaluation.atomic import make_folder, write_json
    from outpace.evaluation.environment import environment
    from outpace.evaluation.report import render

    home = make_folder(KEPT / f"bricks-{pipeline}-{steps}")
    study, bench, _ = build_study(
        pipeline=pipeline,
        methods="fewer-steps-slightly,fewer-steps,gated",
        asked=(),
        also=(),
        with_matrix=False,
        axes=(),
        wanted=prompts,
        home=home,
        seed=0,
        batch=16,
        timing_prompts=1,
        timing_batch=1,
        timing_rounds=1,
        time_every=False,
        converged_steps=100,
        dtype=None,
        device="cpu",
        settings={"steps": steps, "guidance": None, "height": None, "width": None, "frames": None},
    )
    found = schedules(bench, home / "schedules.json")
    study = replace(study, contenders=[*study.contenders, *contenders(bench, found)], speedups=SPEEDUPS, target=1.43)
    rows = run_study(study, progress=sys.stderr.isatty())
    results = build_results(
        study, rows, pipeline=describe(bench), command=f"{COMMAND} {pipeline}", environment=environment("cpu")
    )
    write_json(home / "results.json", results)
    make_folder(ROOT / "docs" / "reports")
    shutil.copy(render(results, home), ROOT / "docs" / "reports" / f"bricks-{pipeline}.html")
    return boiled_down(results, found)


def boiled_down(results: dict[str, Any], found: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What the page tells of one pipeline."""
    held = {c["name"]: c for c in results["contenders"] if not c["error"]}
    plain = np.array([s["blocks"] for s in held["plain"]["samples"]])

    def read(name: str) -> dict[str, Any]:
        psnr = [s["metrics"]["plain"]["psnr"] for s in held[name]["samples"]]
        time = held[name]["time"]
        return {
            "name": name,
            "label": held[name]["label"],
            "curve": held[name]["curve"],
            "work": float(sum(s["blocks"] for s in held[name]["samples"]) / plain.sum()),
            "time": 1.0 / time["wall"]["value"] if time else None,
            "psnr": [round(float(value), 3) for value in psnr],
        }

    rivals = [kind for kind in found if kind not in (OWN, "runs")]
    levels = []
    for work, schedule in found[OWN].items():
        own = read(f"bricks-{OWN}-{work}")
        against = {kind: read(f"bricks-{kind}-{work}".replace(" ", "-")) for kind in rivals}
        levels.append(
            {
                "work": float(work),
                "schedule": schedule,
                "runs": int(found["runs"][work]),
                OWN: own,
                "rivals": {
                    kind: {**rival, "margin": margin(own["psnr"], rival["psnr"])} for kind, rival in against.items()
                },
            }
        )
    return {
        "pipeline": results["pipeline"],
        "prompts": len(plain),
        "levels": levels,
        "beside": [read(name) for name, c in held.items() if c["kind"] in ("fewer-steps", "gated")],
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "environment": results["environment"],
    }


def margin(own: list[float], rival: list[float]) -> dict[str, Any]:
    """How many decibels `own` is ahead on average over the same prompts, with its 95 % interval."""
    from outpace.evaluation.intervals import mean_interval

    found = mean_interval([a - b for a, b in zip(own, rival, strict=True)])
    return {"value": found.value, "low": found.low, "high": found.high}


def page(rows: dict[str, dict[str, Any]]) -> str:
    """docs/results_bricks.md."""
    pairs = [(level, kind) for row in rows.values() for level in row["levels"] for kind in level["rivals"]]
    ahead = sum(level["rivals"][kind]["margin"]["low"] > 0 for level, kind in pairs)
    behind = sum(level["rivals"][kind]["margin"]["high"] < 0 for level, kind in pairs)
    lines = [
        "# Bricks left out: calibrated, uniform and random schedules",
        "",
        f"Written by `{COMMAND}` from benchmarks/results/bricks.json; how it works: "
        "[brick skipping](brick_skipping.md).",
        "",
        f"**In {ahead} of {len(pairs)} comparisons at equal work the calibrated schedule is ahead**, in {behind} it is "
        "behind; in the others the interval holds zero. PSNR in dB of the picture towards the plain pipeline's with "
        "the same noise, mean over held-out prompts, with 95 % intervals of the paired differences. Work is the share "
        "of the plain pipeline's transformer blocks that ran, time the share of its wall time at batch 1 where it was "
        "measured (one prompt, in turns). Schedules were calibrated on other prompts.",
    ]
    for name, row in rows.items():
        lines += ["", f"## {name}, {row['pipeline']['steps']} steps, {row['prompts']} prompts", ""]
        kinds = list(row["levels"][0]["rivals"])
        lines.append(f"| work | calibrated | {' | '.join(kinds)} |")
        lines.append(f"| ---: | ---: |{' ---: |' * len(kinds)}")
        for level in row["levels"]:
            cells = [f"{np.mean(r['psnr']):.2f} ({spoken(r['margin'])})" for r in level["rivals"].values()]
            lines.append(f"| {level[OWN]['work']:.2f} | **{np.mean(level[OWN]['psnr']):.2f}** | {' | '.join(cells)} |")
        lines += [
            "",
            f"In brackets: how far the calibrated schedule is ahead. The rivals' work is {works(row)}.",
        ]
        lines += ["", "| beside | work | time | PSNR |", "| --- | ---: | ---: | ---: |"]
        own = [level[OWN] for level in row["levels"]]
        for entry in sorted([*own, *row["beside"]], key=lambda e: -e["work"]):
            time = "" if entry["time"] is None else f"{entry['time']:.2f}"
            lines.append(f"| {entry['label']} | {entry['work']:.2f} | {time} | {np.mean(entry['psnr']):.2f} |")
        lines += ["", "| work | real runs of the calibration | schedule found |", "| ---: | ---: | --- |"]
        lines += [f"| {level['work']:g} | {level['runs']} | `{level['schedule']}` |" for level in row["levels"]]
        lines += ["", f"Made {row['made']}: " + ", ".join(f"{k} {v}" for k, v in row["environment"].items()) + "."]
    return "\n".join([*lines, ""])


def spoken(found: dict[str, float]) -> str:
    return f"{found['value']:+.2f}, {found['low']:+.2f} to {found['high']:+.2f}"


def works(row: dict[str, Any]) -> str:
    """How far the rivals' work is from the calibrated schedule's, at most."""
    apart = max(
        abs(rival["work"] - level[OWN]["work"]) for level in row["levels"] for rival in level["rivals"].values()
    )
    return f"within {apart:.3f} of its own"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipelines", nargs="*", default=["dit", "flux"], metavar="PIPELINE", help="[default: dit flux]")
    parser.add_argument("--prompts", type=int, default=32, metavar="N", help="held-out prompts [default: 32]")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="denoising steps [default: 50]")
    asked = parser.parse_args()
    import torch

    from outpace.evaluation.atomic import write_json
    from outpace.files import write_text

    torch.set_num_threads(1)
    rows: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for pipeline in asked.pipelines:
        rows[pipeline] = measured(pipeline, asked.steps, asked.prompts)
        write_json(RESULTS, rows)
        write_text(PAGE, page(rows))


if __name__ == "__main__":
    main()
