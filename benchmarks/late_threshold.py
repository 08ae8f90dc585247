"""Does a threshold that changes with the noise level gain anything? Five schedules at five thresholds, equal compute.

    python benchmarks/late_threshold.py [PIPELINE ...]      # flux unless named

Calibration prompts (none of those that figures are read on), `GatedTaylor(threshold=t / sqrt(k), late=t * sqrt(k))`:
the same threshold in the middle of the noise levels for every k, and k times as much at the end as at the beginning.
Each is held against the constant threshold's curve where that spends the same work. Writes late_threshold.json and .md
in benchmarks/results.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results" / "late_threshold.json"
PROMPTS = 12
THRESHOLDS = {50: (0.065, 0.15, 0.33, 0.8, 2.2), 28: (0.15, 0.33, 0.8, 2.2, 6.0)}
"""By the number of steps."""

FACTORS = (1.0, 4.0, 0.25, 16.0, 0.0625)
"""How many times the first threshold the last one is; 1 is the constant one."""


def measured(pipeline: str, steps: int) -> list[dict[str, Any]]:
    """Work and PSNR against the plain pipeline of every schedule."""
    from outpace.accel import GatedTaylor
    from outpace.cli.answering import Bench
    from outpace.evaluation import METRICS, Request
    from outpace.pipelines.load import call_arguments, load_pipeline, read_prompts

    loaded = load_pipeline(pipeline, device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    bench = Bench(loaded=loaded, arguments=call_arguments(loaded, steps=steps))
    texts = read_prompts(loaded, [str(text) for text in loaded.pocket.prompts(PROMPTS, "calibration")])
    requests = [Request(index=i, prompt=text, seed=i) for i, text in enumerate(texts)]
    plain, rows = bench.answer(requests, steps), []
    for factor in FACTORS:
        for threshold in THRESHOLDS[steps]:
            root = factor**0.5
            method = GatedTaylor(threshold=threshold / root, late=threshold * root)
            pairs = list(zip(bench.under((method,), requests, steps), plain, strict=True))
            rows.append(
                {
                    "pipeline": pipeline,
                    "steps": steps,
                    "factor": factor,
                    "threshold": threshold,
                    "work": float(np.mean([made.blocks / base.blocks for made, base in pairs])),
                    "psnr": float(np.mean([METRICS["psnr"].measure(made.media, base.media) for made, base in pairs])),
                }
            )
            print(rows[-1], flush=True)
    return rows


def gains(rows: list[dict[str, Any]]) -> dict[float, list[float]]:
    """dB above the constant threshold's curve at the same work, by factor; where that curve reaches."""
    constant = sorted((row["work"], row["psnr"]) for row in rows if row["factor"] == 1)
    work, psnr = np.array(constant).T
    found: dict[float, list[float]] = {factor: [] for factor in FACTORS if factor != 1}
    for row in rows:
        if row["factor"] != 1 and work[0] - 1e-9 <= row["work"] <= work[-1] + 1e-9:
            found[row["factor"]].append(row["psnr"] - float(np.interp(np.log(row["work"]), np.log(work), psnr)))
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """What every schedule gains, as Markdown."""
    lines = [
        "# A threshold that changes with the noise level",
        "",
        "Written by `python benchmarks/late_threshold.py`. dB of PSNR against the plain pipeline above (or below) what "
        f"a constant threshold reaches with the same work, {PROMPTS} calibration prompts: the mean over the thresholds "
        "whose work the constant curve covers, and in brackets the least and the most.",
        "",
        "| pipeline, steps | " + " | ".join(f"last = {k:g} x first" for k in FACTORS if k != 1) + " |",
        "| --- |" + " ---: |" * (len(FACTORS) - 1),
    ]
    for (pipeline, steps), group in groupby(rows, key=lambda row: (row["pipeline"], row["steps"])):
        found = gains(list(group))
        cells = [f"{np.mean(v):+.1f} ({min(v):+.1f} to {max(v):+.1f})" if v else "" for v in found.values()]
        lines.append(f"| {pipeline}, {steps} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    rows = [row for pipeline in sys.argv[1:] or ["flux"] for steps in THRESHOLDS for row in measured(pipeline, steps)]
    RESULTS.write_text(json.dumps({"schema": 1, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
