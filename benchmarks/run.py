"""The committed comparisons, made again: every pocket pipeline at 50 and 28 steps, ours beside every rival.

    make bench       # or: python benchmarks/run.py [PIPELINE ...] [--prompts N] [--steps N ...] [--methods METHODS]

Runs `outpace compare` for each and keeps its results.json as benchmarks/results/YYYY-MM_DEVICE_PIPELINE-STEPS.json; the
tables of README.md are then written from those files. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PIPELINES = ("dit", "flux", "wan")
STEPS = (50, 28)


def compare(pipeline: str, steps: int, prompts: int, methods: str, out: Path) -> Path:
    """Run one comparison; the path of its results."""
    command = ["compare", pipeline, "--methods", methods, "--prompts", str(prompts), "--steps", str(steps)]
    command += ["--batch", "16", "--timing-prompts", "4", "--out", str(out.relative_to(ROOT))]
    # One thread: two beside another process wait for each other, and the timings would say nothing.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, "-m", "outpace", *command], check=True, cwd=ROOT, env=environment)
    return out / "results.json"


def keep(results: Path) -> Path:
    """Copy a comparison's results to where they are committed, under a name that says when, on what, and what.

    The timelines stay behind: they are many times larger than the figures, and the same command draws them.
    """
    data = json.loads(results.read_text(encoding="utf-8"))
    for contender in data["contenders"]:
        contender.pop("timeline", None)
    device = re.sub(r"[^a-z0-9]+", "-", str(data["environment"].get("device", "cpu")).lower()).strip("-")[:24]
    name = f"{data['made'][:7]}_{device}_{data['pipeline']['name']}-{data['pipeline']['steps']}.json"
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / name
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(part, kept)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipelines", nargs="*", default=PIPELINES, metavar="PIPELINE")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="*", default=STEPS)
    parser.add_argument("--methods", default="all", help="as `outpace compare --methods`")
    chosen = parser.parse_args()
    for pipeline in chosen.pipelines:
        for steps in chosen.steps:
            out = ROOT / "out" / "bench" / f"{pipeline}-{steps}"
            print(keep(compare(pipeline, steps, chosen.prompts, chosen.methods, out)))
    subprocess.run([sys.executable, str(ROOT / "docs" / "tables.py")], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
