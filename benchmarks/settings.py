"""What each setting of the gate is worth: its default beside other values, at equal work, on every pocket pipeline.

    python benchmarks/settings.py [PIPELINE ...] [--steps N ...]

Calibration prompts (none of those that figures are read on). Every variant is run at several thresholds and held
against the curve of the defaults where that spends the same work. Writes benchmarks/results/gate_settings.json after
every curve and gate_settings.md at the end; curves that are there already are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results" / "gate_settings.json"
PROMPTS = {"wan": 8}
"""Of a pipeline, 16 where nothing stands."""

THRESHOLDS = {50: (0.03, 0.06, 0.12, 0.25, 0.6, 2.0), 28: (0.06, 0.15, 0.33, 0.7, 1.5, 4.0)}
"""By the number of steps."""

DEFAULTS = "the defaults"
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULTS: {},
    "coordinate sigma": {"coordinate": "sigma"},
    "cooldown 1": {"cooldown": 1},
    "not corrected": {"correct": False},
    "order 1": {"order": 1},
    "order 2": {"order": 2},
    "order up to 3": {"max_order": 3},
    "published recursion": {"exact": False},
    "gate budget": {"gate": "budget"},
    "warm-up 2": {"warmup": 2},
    "warm-up 5": {"warmup": 5},
    "late, 4 times": {"late": 4.0},
    "late, a quarter": {"late": 0.25},
}
"""By name. `late` is how many times the threshold of the beginning that of the end is; their mean stays."""


def measured(pipeline: str, steps: int, variants: list[str]) -> list[dict[str, Any]]:
    """Work and PSNR against the plain pipeline of these variants at every threshold."""
    from outpace.accel import GatedTaylor
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import METRICS, Request
    from outpace.pipelines.load import call_arguments, load_pipeline, read_prompts

    loaded = load_pipeline(pipeline, device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    bench = Bench(loaded=loaded, arguments=call_arguments(loaded, steps=steps))
    texts = loaded.pocket.prompts(PROMPTS.get(pipeline, 16), "calibration")
    prompts = read_prompts(loaded, [str(text) for text in texts])
    requests = [Request(index=i, prompt=prompt, seed=i) for i, prompt in enumerate(prompts)]
    plain, rows = bench.answer(requests, steps), []
    for variant in variants:
        for threshold in THRESHOLDS[steps]:
            settings = {"threshold": threshold, **VARIANTS[variant]}
            if "late" in settings:
                root = settings["late"] ** 0.5
                settings |= {"threshold": threshold / root, "late": threshold * root}
            made = bench.under((GatedTaylor(**settings),), requests, steps)
            pairs = list(zip(made, plain, strict=True))
            rows.append(
                {
                    "pipeline": pipeline,
                    "steps": steps,
                    "prompts": len(requests),
                    "variant": variant,
                    "threshold": threshold,
                    "work": float(np.mean([one.blocks / base.blocks for one, base in pairs])),
                    "psnr": float(np.mean([METRICS["psnr"].measure(one.media, base.media) for one, base in pairs])),
                }
            )
            print(rows[-1], flush=True)
    return rows


def gains(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """dB above the curve of the defaults at the same work, by variant; where that curve reaches."""
    known = sorted((row["work"], row["psnr"]) for row in rows if row["variant"] == DEFAULTS)
    work, psnr = np.array(known).T
    found: dict[str, list[float]] = {variant: [] for variant in VARIANTS if variant != DEFAULTS}
    for row in rows:
        if row["variant"] != DEFAULTS and work[0] - 1e-9 <= row["work"] <= work[-1] + 1e-9:
            found[row["variant"]].append(row["psnr"] - float(np.interp(np.log(row["work"]), np.log(work), psnr)))
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """What every variant gains, as Markdown."""
    runs = list(dict.fromkeys((row["pipeline"], row["steps"], row["prompts"]) for row in rows))
    found = [gains([row for row in rows if (row["pipeline"], row["steps"]) == run[:2]]) for run in runs]
    lines = [
        "# What each setting of the gate is worth",
        "",
        "Written by `python benchmarks/settings.py`. dB of PSNR against the plain pipeline above (or below) what the "
        "defaults of `GatedTaylor` reach with the same work, on calibration prompts: the mean over the thresholds "
        "whose work the curve of the defaults covers, and in brackets the least and the most.",
        "",
        "| instead of the defaults | " + " | ".join(f"{name}, {steps} steps" for name, steps, _ in runs) + " |",
        "| --- |" + " ---: |" * len(runs),
    ]
    for variant in VARIANTS:
        if variant != DEFAULTS:
            cells = [f"{np.mean(v):+.1f} ({min(v):+.1f} to {max(v):+.1f})" if (v := f[variant]) else "" for f in found]
            lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    counts = "; ".join(f"{name}, {steps} steps: {prompts}" for name, steps, prompts in runs)
    return "\n".join([*lines, "", f"Prompts: {counts}."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipelines", nargs="*", default=("dit", "flux", "wan"), metavar="PIPELINE")
    parser.add_argument("--steps", type=int, nargs="*", default=tuple(THRESHOLDS), choices=tuple(THRESHOLDS))
    chosen = parser.parse_args()
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.is_file() else []
    for pipeline in chosen.pipelines:
        for steps in chosen.steps:
            kept = {row["variant"] for row in rows if (row["pipeline"], row["steps"]) == (pipeline, steps)}
            for variant in VARIANTS:
                if variant not in kept:
                    rows += measured(pipeline, steps, [variant])
                    RESULTS.write_text(json.dumps({"schema": 2, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
