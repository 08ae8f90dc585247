"""Mixtures of experts and of blocks beside pruning, all distilled alike: two pockets, three seeds, several ways.

    make bench-dense2moe     # or: python benchmarks/dense2moe.py [PIPELINE ...] [--seeds N] [--ways WAY ...]

Every way starts from the same dense weights and takes the same steps on the same samples of the same teacher; what it
is then asked is held-out: other prompts, other noise. Writes benchmarks/results/dense2moe.json after every cell, then
docs/results_dense2moe.md and docs/img/dense2moe.png. Cells and checkpoints stay in out/bench/dense2moe, so that an
interrupted run goes on; all ways of the first seed come first. Cells that the results have and the folder has not stay
in them, so that `--ways` measures what is new beside the old; without the results all is measured again. One thread;
times are processor time, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from outpace.accel.experts import Conversion
    from outpace.pipelines.distill import TeacherCalls
    from outpace.pipelines.load import Loaded

RESULTS = ROOT / "benchmarks" / "results" / "dense2moe.json"
PAGE = ROOT / "docs" / "results_dense2moe.md"
PICTURE = ROOT / "docs" / "img" / "dense2moe.png"

WIDTH = 0.375
"""Share of a feed-forward layer's matrices that 1S12E2A uses, and that width pruning keeps."""
BY_NOISE = "0S8E3A4N"
"""As many units as WIDTH, chosen at each of 4 noise levels."""
BY_WEIGHTS = "0S8E3A4W"
"""The units that width pruning keeps, with weights of their own at each of 4 noise levels."""
GROUPS = tuple((first, 3, 2) for first in range(4, 22, 3))
"""First block, size and active blocks of every group; a static choice drops as many of each group."""
TEXT_WEIGHT = 0.0
"""Of the tokens in a group's router: it goes by noise level, class and pooled text alone. On `dit`, routers that saw
tokens only drew level with the static choice, and groups of 4 of which 2 run stayed 1.4 times as far off: a block
learns from its own samples only."""
SAMPLED_STEPS = 20
"""Denoising steps of everything that is recorded, generated or judged."""
TRAIN_PROMPTS, HELD_PROMPTS = 96, 24
TRAIN_SEED, HELD_SEED = 100_000, 700_000
BALANCE = 0.1
"""Of the balance loss, relative to the distance of the outputs."""
SHOWN = 6
"""Held-out prompts in the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How the students of one pocket are trained."""

    pipeline: str
    steps: int
    batch: int


PLANS = (Plan(pipeline="dit", steps=120, batch=32), Plan(pipeline="flux", steps=100, batch=16))

LABELS = {
    "moe": "MoE 1S12E2A",
    "shared": "shared expert only",
    "random": "width, random",
    "taylor": "width, Taylor",
    "noise": f"by noise {BY_NOISE}",
    "weights": f"by noise {BY_WEIGHTS}",
    "mob": "mixture of blocks",
    "drop": "static depth",
}
"""Ways by name, as people read them; the last two are compared with each other."""
BESIDE = {
    "moe": ("shared", "random", "taylor"),
    "noise": ("taylor", "moe"),
    "weights": ("taylor", "noise"),
    "mob": ("drop",),
}
"""Ways with those that their error is divided by, seed by seed."""
TIMED_BESIDE = {"noise": "taylor", "weights": "taylor"}
"""Ways whose call is timed in turns with that of another way, too."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One pocket with its teacher's calls, for training and held out."""

    loaded: Loaded
    arguments: dict[str, Any]
    train: TeacherCalls
    held: TeacherCalls

    @property
    def teacher(self) -> Any:
        return self.loaded.pipe.transformer

    def some_calls(self, seed: int, count: int = 8, samples: int = 16) -> list[dict[str, Any]]:
        """Training calls at mixed noise levels."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(0, len(self.train), (count, samples), generator=generator)
        return [self.train.take(index)[0] for index in chosen]


def prepared(plan: Plan, folder: Path) -> Bench:
    """The pocket, and what its teacher says: recorded once."""
    from outpace.pipelines.distill import record_teacher
    from outpace.pipelines.load import call_arguments, load_pipeline

    loaded = load_pipeline(plan.pipeline, device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    arguments = call_arguments(loaded, steps=SAMPLED_STEPS)

    def calls(count: int, split: str, seed: int) -> TeacherCalls:
        prompts = loaded.pocket.prompts(count, split)
        return record_teacher(loaded, prompts, arguments, seed=seed, folder=folder, progress=False)

    return Bench(
        loaded, arguments, calls(TRAIN_PROMPTS, "train", TRAIN_SEED), calls(HELD_PROMPTS, "held_out", HELD_SEED)
    )


def student_of(way: str, bench: Bench, seed: int) -> tuple[Any, Conversion]:
    """An untrained student."""
    import torch

    from outpace.accel.experts import (
        BlockGroup,
        Conversion,
        Experts,
        Layout,
        block_effects,
        convert,
        level_borders,
        level_importance,
        output_change,
        random_importance,
        start_experts,
        start_groups,
        taylor_importance,
    )

    calls, generator = bench.some_calls(seed), torch.Generator().manual_seed(seed)

    def taylor() -> dict[str, torch.Tensor]:
        return taylor_importance(bench.teacher, calls, lambda model, call: output_change(model, call, generator))

    def least_changing() -> tuple[int, ...]:
        places = [first + place for first, size, _ in GROUPS for place in range(size)]
        moved = block_effects(bench.teacher, calls, places).mean(0).tolist()
        gone: list[int] = []
        for first, size, active in GROUPS:
            gone += sorted(range(first, first + size), key=lambda place: moved[place])[: size - active]
        return tuple(sorted(gone))

    settings: dict[str, Callable[[], tuple[Conversion, Any]]] = {
        "moe": lambda: (Conversion(experts=Experts(scaling="one")), taylor()),
        "shared": lambda: (Conversion(experts=Experts(layout="1S12E0A")), taylor()),
        "random": lambda: (Conversion(width=WIDTH), random_importance(bench.teacher, seed)),
        "taylor": lambda: (Conversion(width=WIDTH), taylor()),
        "mob": lambda: (
            Conversion(
                groups=tuple(BlockGroup(first=f, size=m, active=k) for f, m, k in GROUPS), text_weight=TEXT_WEIGHT
            ),
            None,
        ),
        "drop": lambda: (Conversion(dropped=least_changing()), None),
    }

    def by_noise() -> tuple[Conversion, Any]:
        found = level_importance(bench.teacher, calls, Layout.parse(BY_NOISE).levels, seed=seed)
        return Conversion(experts=Experts(layout=BY_NOISE), borders=found.borders), found.scores

    settings["noise"] = by_noise
    settings["weights"] = lambda: (
        Conversion(experts=Experts(layout=BY_WEIGHTS), borders=level_borders(calls, Layout.parse(BY_WEIGHTS).levels)),
        taylor(),
    )
    conversion, importance = settings[way]()
    student = convert(bench.teacher, conversion, importance=importance, seed=seed)
    if way == "moe":
        start_experts(student, calls, seed=seed)
    if way == "mob":
        start_groups(student, calls)
    return student, conversion


def cell(plan: Plan, bench: Bench, way: str, seed: int, folder: Path) -> dict[str, Any]:
    """One student trained and judged; pictures go into `folder`."""
    import numpy as np

    from outpace.accel.experts import active_parameters, count
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
    size = {name: bench.arguments[name] for name in ("height", "width") if name in bench.arguments}
    counted = count(bench.teacher, conversion, **size)
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
        "flops": counted.flops / counted.dense_flops,
        "time": share_of_time(bench, student, bench.teacher),
        "time_beside": {
            other: share_of_time(bench, student, student_of(other, bench, seed)[0])
            for one, other in TIMED_BESIDE.items()
            if one == way
        },
        "conversion": conversion.to_dict(),
        "routing": routing_by_noise(student, bench.held),
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "environment": environment("cpu"),
    }
    return found


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


def share_of_time(bench: Bench, student: Any, other: Any, repetitions: int = 21) -> float:
    """Processor time of a call of the student beside one of `other`, in turns; median of the ratios."""
    import torch

    call, _ = bench.held.take(torch.arange(8))

    def seconds(model: Any) -> float:
        start = time.process_time()
        with torch.no_grad():
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


def publish(folder: Path, benches: dict[str, Bench]) -> None:
    """Write the results, the page and the picture from every cell that is kept."""
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"cells": [], "teachers": {}}
    ours = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/cell.json"))]
    kept = list({tuple(one[k] for k in ("pipeline", "way", "seed")): one for one in [*before["cells"], *ours]}.values())
    plans, ways = {plan.pipeline: plan for plan in PLANS}, list(LABELS)
    cells = [one for one in kept if one["pipeline"] in plans and one["steps"] == plans[one["pipeline"]].steps]
    cells.sort(key=lambda one: (list(plans).index(one["pipeline"]), ways.index(one["way"]), one["seed"]))
    if not cells:
        return
    teachers = {
        pipeline: before["teachers"].get(pipeline) or teacher_of(pipeline, folder, benches.get(pipeline))
        for pipeline in {one["pipeline"]: 0 for one in cells}
    }
    write_whole(RESULTS, json.dumps({"schema": 1, "teachers": teachers, "cells": cells}, indent=1) + "\n")
    write_whole(PAGE, page(cells, teachers))
    draw(cells, folder)


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


def page(cells: list[dict[str, Any]], teachers: dict[str, Any]) -> str:
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
        "held-out prompts ask for that a checker reads off generated pictures. Time is processor time of one call of 8 "
        "samples on one thread, as a share of the dense model's; FLOPs likewise, counted. These pockets are 64 and 96 "
        "wide: what a split layer costs and saves at larger widths stands in benchmarks/results/moe_cpu.md.",
        "",
    ]
    for plan in PLANS:
        ours = [one for one in cells if one["pipeline"] == plan.pipeline]
        if ours:
            lines += section(plan, ours, teachers[plan.pipeline])
    lines += ["![Teacher, mixtures and pruned models on the same prompts and noise](img/dense2moe.png)", ""]
    told = ("device", "torch threads", "system", "python", "torch", "diffusers")
    places: dict[str, list[dict[str, Any]]] = {}
    for one in cells:
        places.setdefault(", ".join(f"{key} {one['environment'][key]}" for key in told), []).append(one)
    for place, some in sorted(places.items()):
        dates, ways = sorted(one["made"] for one in some), dict.fromkeys(LABELS[one["way"]] for one in some)
        lines.append(f"- {', '.join(ways)}: {place}; made {dates[0]} to {dates[-1]}.")
    return "\n".join(lines) + "\n"


def section(plan: Plan, cells: list[dict[str, Any]], teacher: dict[str, Any]) -> list[str]:
    """One pocket: a table of ways, the ratios that matter, and how routers chose."""
    ways = [way for way in LABELS if any(one["way"] == way for one in cells)]
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
            f"| {LABELS[way]} | {len(rows)} | {used:.3f} | {flops:.3f} | {took:.2f} | {before:.3g} "
            f"| {spread([relative(one) for one in rows])} | {' | '.join(f'{share:.2f}' for share in obeyed)} "
            f"| {seconds:.0f} |"
        )
    lines.append("")
    for first, others in BESIDE.items():
        for other in others:
            ratios = paired(cells, first, other)
            if ratios:
                lines.append(
                    f"- {LABELS[first]}: {spread(ratios)} times the error of {LABELS[other]}, seed by seed "
                    f"({sum(ratio < 1 for ratio in ratios)} of {len(ratios)} seeds below it)."
                )
    for way, other in TIMED_BESIDE.items():
        times = [one["time_beside"][other] for one in cells if one["way"] == way]
        if times:
            starts = paired(cells, way, other, "error_before")
            lines.append(
                f"- {LABELS[way]}: before training {spread(starts)} times the error of {LABELS[other]}; a call takes "
                f"{spread(times)} times as long, the two in turns."
            )
    for way in ("moe", "mob"):
        seen = [one["routing"] for one in cells if one["way"] == way and one["routing"]]
        if seen:
            apart, chance = ([one[key] for one in seen] for key in ("noisy_and_clean", "chance"))
            lines.append(
                f"- Routers of {LABELS[way]} choose differently at high and at low noise: {spread(apart)} of their "
                f"choices differ between the noisiest and the cleanest third, {spread(chance)} between random thirds. "
                f"Load of one choice relative to equal use: {min(one['least_load'] for one in seen):.2f} to "
                f"{max(one['most_load'] for one in seen):.2f}."
            )
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
    for way, label in LABELS.items():
        found = [first.get((pipeline, way)) for pipeline in pipelines]
        if any(found):
            files = [folder / f"{o['pipeline']}-{o['steps']}-0-{way}" / "pictures.npz" if o else None for o in found]
            rows.append((label, files))
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


def main() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="only these")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--ways", nargs="*", metavar="WAY", help=f"only these of {', '.join(LABELS)}")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "bench" / "dense2moe", help="for what is kept")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    benches: dict[str, Bench] = {}
    for seed in range(chosen.seeds):
        for plan in PLANS:
            if plan.pipeline not in (chosen.pipelines or [plan.pipeline]):
                continue
            for way in LABELS:
                kept = chosen.folder / f"{plan.pipeline}-{plan.steps}-{seed}-{way}"
                if way not in (chosen.ways or [way]) or (kept / "cell.json").is_file():
                    continue
                if plan.pipeline not in benches:
                    benches[plan.pipeline] = prepared(plan, chosen.folder)
                kept.mkdir(parents=True, exist_ok=True)
                found = cell(plan, benches[plan.pipeline], way, seed, kept)
                write_whole(kept / "cell.json", json.dumps(found, indent=1) + "\n")
                for checkpoint in kept.glob("*-joint.pt"):
                    checkpoint.unlink()
                print(f"{plan.pipeline} seed {seed} {way}: {found['error']:.3g}", flush=True)
                publish(chosen.folder, benches)
    publish(chosen.folder, benches)


if __name__ == "__main__":
    main()
