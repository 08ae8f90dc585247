"""Mixtures of experts and of blocks beside pruning, all distilled alike: two pockets, three seeds, several ways.

    make bench-dense2moe     # or: python benchmarks/dense2moe.py [PIPELINE ...] [--seeds N] [--ways WAY ...]

Every way starts from the same dense weights and takes the same steps on the same samples of the same teacher; what it
is then asked is held-out: other prompts, other noise. Writes benchmarks/results/dense2moe.json after every cell, then
docs/results_dense2moe.md and docs/img/dense2moe.png. Cells and checkpoints stay in out/bench/dense2moe, so that an
interrupted run goes on; all ways of the first seed come first. Cells that the results have and the folder has not stay
in them, so that `--ways` measures what is new beside the old; without the results all is measured again. `--before`
trains nothing: what every way is worth at its start. One thread; times are processor time, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.dense2moe_page import ROOT, SHOWN, publish, write_whole
from benchmarks.dense2moe_ways import (
    HELD_PROMPTS,
    HELD_SEED,
    PLANS,
    WAYS,
    Bench,
    Plan,
    flops_of,
    prepared,
    student_of,
)
from outpace.pipelines.distill import TeacherCalls

BALANCE = 0.1
"""Of the balance loss, relative to the distance of the outputs."""


def cell(plan: Plan, bench: Bench, way: str, seed: int, folder: Path) -> dict[str, Any]:
    """One student trained and judged; pictures go into `folder`."""
    import numpy as np

    from outpace.accel.experts import active_parameters
    from outpace.evaluation.environment import environment
    from outpace.pipelines.distill import Distillation, distill

    student, conversion = student_of(way, bench, seed)
    before = error(student, bench.held)
    settings = Distillation(
        stages=(("joint", plan.steps),), batch=plan.batch, average=0.98, balance_weight=BALANCE, seed=seed
    )
    fitted = distill(bench.teacher, student, bench.train, settings, folder, progress=sys.stderr.isatty())[0]
    after = error(student, bench.held)
    pictures, hits = generated(bench, student)
    np.savez_compressed(folder / "pictures.npz", *pictures[:SHOWN])
    beside = [one for one in (WAYS[way].timed,) if one is not None]
    found: dict[str, Any] = {
        "pipeline": plan.pipeline,
        "way": way,
        "seed": seed,
        "steps": plan.steps,
        "batch": plan.batch,
        "seconds": fitted.cpu_seconds,
        "error_before": before,
        "error": after,
        "power": float(bench.held.output.square().mean()),
        "accuracy": hits,
        "active_parameters": active_parameters(student),
        "dense_parameters": sum(p.numel() for p in bench.teacher.parameters()),
        "flops": flops_of(bench.loaded, conversion),
        "time": share_of_time(bench, student, bench.teacher),
        "time_beside": {one: share_of_time(bench, student, student_of(one, bench, seed)[0]) for one in beside},
        "conversion": conversion.to_dict(),
        "routing": routing_by_noise(student, bench.held),
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "environment": environment("cpu"),
    }
    return found


def untrained(bench: Bench, way: str, seed: int) -> dict[str, Any]:
    """What is known about a student before training, and what making it took."""
    from outpace.evaluation.environment import environment

    start = time.process_time()
    student, _ = student_of(way, bench, seed)
    seconds = time.process_time() - start
    return {
        "way": way,
        "seed": seed,
        "seconds": seconds,
        "error_before": error(student, bench.held),
        "power": float(bench.held.output.square().mean()),
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "environment": environment("cpu"),
    }


def error(student: Any, calls: TeacherCalls, batch: int = 64) -> float:
    """Mean squared distance to the teacher's answers."""
    import torch

    total = 0.0
    with torch.no_grad():
        for index in torch.arange(len(calls)).split(batch):
            call, wanted = calls.take(index)
            total += float((student(**call)[0] - wanted).square().sum())
    return total / calls.output.numel()


def generated(bench: Bench, transformer: Any) -> tuple[list[Any], dict[str, float]]:
    """Pictures of held-out prompts with `transformer` in the pipeline, and the share of their words that they obey."""
    from outpace.pipelines.load import run_pipeline

    prompts = bench.loaded.pocket.prompts(HELD_PROMPTS, "held_out")
    teacher, bench.loaded.pipe.transformer = bench.teacher, transformer
    try:
        pictures = []
        for start in range(0, len(prompts), 12):
            some = prompts[start : start + 12]
            pictures += run_pipeline(
                bench.loaded, some, [HELD_SEED + start + i for i in range(len(some))], bench.arguments
            )
    finally:
        bench.loaded.pipe.transformer = teacher
    hits = bench.loaded.pocket.check(pictures, prompts)
    return pictures, {name: statistics.mean(hit[name] for hit in hits) for name in hits[0]}


def share_of_time(bench: Bench, student: Any, other: Any, repetitions: int = 3) -> float:
    """Processor time of the calls of 8 samples at every step beside that of `other`, in turns; median of the ratios."""
    import torch

    times = bench.held.noise_levels()
    calls = [bench.held.take((times == level).nonzero().flatten()[:8])[0] for level in times.unique().flip(0)]

    def seconds(model: Any) -> float:
        start = time.process_time()
        with torch.no_grad():
            for call in calls:
                model(**call)
        return time.process_time() - start

    for model in (other, student):
        seconds(model)
    return statistics.median(seconds(student) / seconds(other) for _ in range(repetitions))


def routing_by_noise(student: Any, calls: TeacherCalls) -> dict[str, Any] | None:
    """How differently routers choose in the noisier and in the cleaner third of the samples; None without routers.

    Total variation between the shares of the choices, 0 to 1, averaged over routers; beside it the same between two
    random thirds, which is what chance gives.
    """
    import torch

    from outpace.accel.experts import find_experts, find_groups, watch

    if not find_experts(student) and not find_groups(student):
        return None
    third = min(len(calls) // 3, 192)
    order = calls.noise_levels().argsort(stable=True)
    shuffled = torch.randperm(len(calls), generator=torch.Generator().manual_seed(0))

    def loads(index: torch.Tensor) -> dict[str, list[float]]:
        with torch.no_grad(), watch(student) as routing:
            for part in index.split(64):
                student(**calls.take(part)[0])
        return routing.load()

    def apart(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
        gaps = [sum(abs(a - b) for a, b in zip(one[n], other[n], strict=True)) / (2 * len(one[n])) for n in one]
        return statistics.mean(gaps)

    clean, noisy = loads(order[:third]), loads(order[-third:])
    if not clean:
        return None
    chance = apart(loads(shuffled[:third]), loads(shuffled[third : 2 * third]))
    every = [share for part in loads(shuffled).values() for share in part]
    return {"noisy_and_clean": apart(clean, noisy), "chance": chance, "least_load": min(every), "most_load": max(every)}


def teacher_of(pipeline: str, folder: Path, bench: Bench | None) -> dict[str, Any]:
    """What the teacher itself reaches on the held-out prompts; generated once, its pictures kept."""
    import numpy as np

    path = folder / f"{pipeline}-teacher.json"
    if not path.is_file():
        if bench is None:
            bench = prepared(next(plan for plan in PLANS if plan.pipeline == pipeline), folder)
        pictures, hits = generated(bench, bench.teacher)
        np.savez_compressed(folder / f"{pipeline}-teacher.npz", *pictures[:SHOWN])
        write_whole(path, json.dumps({"accuracy": hits}) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="only these")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--ways", nargs="*", metavar="WAY", help=f"only these of {', '.join(WAYS)}")
    parser.add_argument("--before", action="store_true", help="only what every way is worth before training")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "bench" / "dense2moe", help="for what is kept")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    benches: dict[str, Bench] = {}
    for seed in range(chosen.seeds):
        for plan in PLANS:
            if plan.pipeline not in (chosen.pipelines or [plan.pipeline]):
                continue
            for way in [name for name, one in WAYS.items() if one.trained or chosen.before]:
                kept = chosen.folder / f"{plan.pipeline}-{plan.steps}-{seed}-{way}"
                file = kept / ("before.json" if chosen.before else "cell.json")
                if way not in (chosen.ways or [way]) or file.is_file():
                    continue
                if plan.pipeline not in benches:
                    benches[plan.pipeline] = prepared(plan, chosen.folder)
                if chosen.before:
                    told = {"pipeline": plan.pipeline, **untrained(benches[plan.pipeline], way, seed)}
                    write_whole(file, json.dumps(told, indent=1) + "\n")
                    print(f"{plan.pipeline} seed {seed} {way} before training: {told['error_before']:.3g}", flush=True)
                    continue
                kept.mkdir(parents=True, exist_ok=True)
                found = cell(plan, benches[plan.pipeline], way, seed, kept)
                write_whole(kept / "cell.json", json.dumps(found, indent=1) + "\n")
                for checkpoint in kept.glob("*-joint.pt"):
                    checkpoint.unlink()
                print(f"{plan.pipeline} seed {seed} {way}: {found['error']:.3g}", flush=True)
                publish(chosen.folder, lambda name: teacher_of(name, chosen.folder, benches.get(name)))
    publish(chosen.folder, lambda name: teacher_of(name, chosen.folder, benches.get(name)))


if __name__ == "__main__":
    main()
