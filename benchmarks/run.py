"""The committed comparisons, made again: every pocket pipeline at 50 and 28 steps, ours beside every rival.

    make bench       # or: python benchmarks/run.py [PIPELINE ...] [--prompts N] [--steps N ...] [--methods METHODS]
    python benchmarks/run.py wan-long     # sparse attention: 4352 tokens, a clip takes half a minute and more
    python benchmarks/run.py --matrix     # every combination of parts, at 50 steps: docs/results_matrix.md
    python benchmarks/run.py --sisters    # pipelines that no setting was chosen on, trained where they are missing
    python benchmarks/run.py photo --again --methods METHODS    # a few contenders, beside a committed comparison
    python benchmarks/run.py --sisters --timing-batch 8    # times of calls for eight pictures, of near rivals

Runs `outpace compare` for each and keeps its results.json as benchmarks/results/YYYY-MM_DEVICE_PIPELINE-STEPS.json and
its report as docs/reports/PIPELINE-STEPS.html; the tables of README.md are then written from those files. An
interrupted run continues where it stopped. What `--again` measures is kept as again-PIPELINE-STEPS.json: in the table
of README.md those contenders stand as they were found last, the others as in the comparison of all. What
`--timing-batch` measures is kept as batches-PIPELINE-STEPS.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
REPORTS = ROOT / "docs" / "reports"
PIPELINES = ("dit", "flux", "wan")
STEPS = (50, 28)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a pipeline is compared unless the command says otherwise."""

    methods: str = "all"
    prompts: int = 64
    steps: tuple[int, ...] = STEPS
    options: tuple[str, ...] = ("--batch", "16", "--timing-prompts", "2")


PLANS = {
    # Everything, but fewer settings of those peers that answer one prompt at a time, which takes hours on one core.
    "wan": Plan(
        methods="gated,gated-budget,gated-paper,gated+solver,gated+solver-short,interval,interval-order2,fewer-steps,"
        "dpm++,unipc,taylorseer-lite,taylorseer-3,taylorseer-5,first-block-cache-0.06,first-block-cache-0.1,"
        "first-block-cache-0.15,magcache-0.06,magcache-0.12,magcache-0.24,pab-2-4,pab-4-8,fastercache-2-681,"
        "fastercache-4-681,seacache-0.1,seacache-0.25,seacache-0.4,cache-dit-0.08,cache-dit-0.12,cache-dit-0.24,"
        "cache-dit-taylor-0.08,cache-dit-taylor-0.12,cache-dit-taylor-0.24"
    ),
    # In bfloat16, as models of its kind are run: its errors are far above what that rounds away.
    "photo": Plan(
        methods="scheduled,gated,gated-paper,interval-order2,fewer-steps,unipc,spectrum,easycache,teacache,"
        "meancache,taylorseer,taylorseer-lite",
        prompts=8,
        options=("--batch", "8", "--timing-prompts", "1", "--dtype", "bfloat16"),
    ),
    "wan-long": Plan(
        methods="adaspa-0.8,adaspa-0.9,adaspa-0.95,adaspa-0.98,adaspa-sparsity-0.7,adaspa-sparsity-0.8,"
        "steps-24,steps-19,steps-15,unipc-18,gated-0.1,gated-0.33,gated+adaspa-0.9,gated+adaspa-0.95",
        prompts=8,
        steps=(30,),
        options=("--batch", "1", "--timing-prompts", "1", "--time-every", "--converged-steps", "60"),
    ),
}


MATRIX = Plan(methods="fewer-steps", prompts=16, steps=(50,))
"""How combinations are run with `--matrix`."""

MATRIX_PLANS = {
    "wan-long": Plan(
        methods="none",
        prompts=2,
        steps=(30,),
        options=("--batch", "1", "--timing-prompts", "1", "--converged-steps", "60"),
    )
}


RIVALS = (
    "scheduled,scheduled-calibrated,scheduled+solver,gated,gated-paper,interval,interval-order2,fewer-steps,dpm++,unipc,"
    "spectrum,easycache,meancache,taylorseer-lite,seacache,first-block-cache,cache-dit-taylor"
)
"""Ours by the dial, calibrated, on a better solver and gated, beside the rivals that people use."""
SISTERS = Plan(methods=RIVALS, prompts=16, options=("--batch", "16", "--timing-prompts", "1"))
"""How sisters are compared: as many prompts as two shared cores had the time for."""
NEAREST = "scheduled,interval,interval-order2,meancache,spectrum,taylorseer-lite"
"""The dial, and the rivals that are nearest to it in the comparisons of all: who is timed in batches."""
SISTER_PLANS = {"photo": PLANS["photo"]}
SISTERS_AT = ROOT / "out" / "sisters"


def sister(name: str) -> str:
    """The folder of the sister of `name`, trained unless it is there; fingerprint and card are kept beside recipes."""
    from outpace.cli.contenders.bench import weights_digest
    from outpace.pipelines import load_pocket, train_pocket
    from outpace.pipelines.pocket.sisters import SISTER_FACTS, sister_of

    folder = SISTERS_AT / name
    if not (folder / "card.json").is_file():
        train_pocket(sister_of(name).name, folder)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    facts = json.loads(SISTER_FACTS.read_text(encoding="utf-8")) if SISTER_FACTS.is_file() else {}
    facts[sister_of(name).name] = {"weights": weights_digest(load_pocket(folder)), **card}
    SISTER_FACTS.write_text(json.dumps(dict(sorted(facts.items())), indent=1) + "\n", encoding="utf-8")
    return str(folder.relative_to(ROOT))


def compare(pipeline: str, steps: int, prompts: int, methods: str, options: tuple[str, ...], out: Path) -> Path:
    """Run one comparison; the path of its results."""
    command = ["compare", pipeline, "--methods", methods, "--prompts", str(prompts), "--steps", str(steps)]
    command += [*options, "--out", str(out.relative_to(ROOT))]
    # One thread: two beside another process wait for each other, and the timings would say nothing.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, "-m", "outpace", *command], check=True, cwd=ROOT, env=environment)
    return out / "results.json"


def keep(results: Path, *, beside: str = "") -> Path:
    """Copy a comparison's results to where they are committed, under a name that says when, on what, and what.

    Args:
        beside: some contenders of a committed comparison, whose report stays: measured "again", or in "batches".

    The timelines stay behind, and digits beyond the sixth: they are many times larger than what is read. The report is
    kept too, in docs/reports.
    """
    data = json.loads(results.read_text(encoding="utf-8"), parse_float=lambda digits: float(f"{float(digits):.6g}"))
    for contender in data["contenders"]:
        contender.pop("timeline", None)
    device = re.sub(r"[^a-z0-9]+", "-", str(data["environment"].get("device", "cpu")).lower()).strip("-")[:24]
    what = f"{'matrix-' if 'matrix' in data else ''}{data['pipeline']['name']}-{data['pipeline']['steps']}"
    if beside:
        data["again"], what = True, f"{beside}-{what}"
    name = f"{data['made'][:7]}_{device}_{what}.json"
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / name
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(part, kept)
    if beside:
        return kept
    REPORTS.mkdir(exist_ok=True)
    shutil.copy(results.with_name("report.html"), REPORTS / f"{what}.html")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipelines", nargs="*", default=PIPELINES, metavar="PIPELINE")
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--steps", type=int, nargs="*")
    parser.add_argument("--methods", help="as `outpace compare --methods`")
    parser.add_argument("--timing-prompts", type=int, help="prompts that are timed; 0 on a machine that is shared")
    parser.add_argument("--matrix", action="store_true", help="every combination of parts instead of curves")
    parser.add_argument("--sisters", action="store_true", help="the sisters of the pipelines instead")
    parser.add_argument("--again", action="store_true", help="only --methods, beside the committed comparison")
    parser.add_argument("--timing-batch", type=int, default=1, metavar="N", help="time calls of N prompts, of a few")
    chosen = parser.parse_args()
    if chosen.again and not chosen.methods:
        parser.error("--again measures some contenders: name them with --methods")
    for name in chosen.pipelines:
        pipeline = sister(name) if chosen.sisters else name
        plan = MATRIX_PLANS.get(name, MATRIX) if chosen.matrix else PLANS.get(name, Plan())
        plan = SISTER_PLANS.get(name, SISTERS) if chosen.sisters else plan
        options = (*plan.options, "--matrix") if chosen.matrix else plan.options
        if chosen.timing_prompts is not None:
            options = (*options, "--timing-prompts", str(chosen.timing_prompts))
        batches = chosen.timing_batch > 1
        if batches:
            asked = chosen.timing_prompts or chosen.timing_batch
            options = (*options, "--timing-prompts", str(asked), "--timing-batch", str(chosen.timing_batch))
        beside = "batches" if batches else "again" if chosen.again else ""
        if beside:  # what only the README's table takes
            options = (*options, "--converged-steps", "0")
        for steps in chosen.steps or plan.steps:
            kind = f"{'matrix-' * chosen.matrix}{beside}{'-' * bool(beside)}"
            out = ROOT / "out" / "bench" / f"{kind}{name}{'-sister' * chosen.sisters}-{steps}"
            methods, prompts = chosen.methods or (NEAREST if batches else plan.methods), chosen.prompts or plan.prompts
            print(keep(compare(pipeline, steps, prompts, methods, options, out), beside=beside))
    subprocess.run([sys.executable, str(ROOT / "docs" / "tables.py")], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
