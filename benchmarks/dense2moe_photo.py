"""What converting the pocket `photo` saves on the clock, alone and under `speedup=`, beside what FLOPs promise.

    python benchmarks/dense2moe_photo.py

Photographs of 256 tokens through 16 blocks of width 256, and a twin of the same shape of width 384 with random weights:
what a call takes does not depend on weights. Nothing is trained; the error is that of the fitted start. Writes
benchmarks/results/dense2moe_photo.json, from which `benchmarks/dense2moe.py` makes a section of its page. One thread;
times are processor time of whole pipeline runs, the models in turns.
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

from benchmarks.dense2moe_page import PHOTO, page_of, write_whole
from benchmarks.dense2moe_ways import HELD_SEED, TRAIN_SEED, WIDTH

LAYOUTS = {"spread": "0S16E6A4W", "moe": "1S12E2A"}
"""Those that are converted to; width pruning stands beside them."""
STEPS = 8
"""Denoising steps of a run that is timed."""
SPEEDUP = 2.0


def twins(dense: Any, calls: list[dict[str, Any]]) -> dict[str, tuple[Any, float]]:
    """Converted copies of a transformer by way, with their FLOPs relative to the dense ones."""
    from outpace.accel.experts import (
        Conversion,
        Experts,
        convert,
        count,
        level_importance,
        spread_experts,
        start_levels,
    )

    found = level_importance(dense, calls, 4)
    scores = {path: rows.square().mean(0).sqrt() for path, rows in found.scores.items()}
    counts = spread_experts(dense, found, LAYOUTS["spread"])
    settings = {
        "width": (Conversion(width=WIDTH), scores),
        "spread": (
            Conversion(experts=Experts(layout=LAYOUTS["spread"]), borders=found.borders, spread=counts),
            found.scores,
        ),
        "moe": (Conversion(experts=Experts(layout=LAYOUTS["moe"], scaling="one")), scores),
    }
    made = {}
    for way, (conversion, importance) in settings.items():
        student = convert(dense, conversion, importance=importance)
        if way == "spread":
            start_levels(student, calls)
        told = count(dense, conversion, height=128, width=128)
        made[way] = (student, told.flops / told.dense_flops)
    return made


def seconds_of(run: Any) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def in_turns(models: dict[str, Any], run: Any, repetitions: int) -> dict[str, dict[str, float]]:
    """Median processor seconds of `run(model)` of each, and the median of their ratios to the first."""
    for model in models.values():
        run(model)
    first = next(iter(models))
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repetitions):
        for name, model in models.items():
            taken[name].append(seconds_of(lambda model=model: run(model)))
    return {
        name: {
            "seconds": statistics.median(some),
            "ratio": statistics.median(one / other for one, other in zip(some, taken[first], strict=True)),
        }
        for name, some in taken.items()
    }


def measured(repetitions: int, width: int | None) -> dict[str, Any]:
    """`photo` itself, or with `width` a twin of that width with random weights."""
    import torch

    import outpace
    from outpace.accel.experts.calls import record_calls
    from outpace.evaluation.environment import environment
    from outpace.pipelines.load import call_arguments, call_pipeline, load_pipeline

    loaded = load_pipeline("photo", dtype=torch.float32, device="cpu", progress=False)
    pipe, prompts = loaded.pipe, loaded.pocket.prompts(2, "train")
    pipe.set_progress_bar_config(disable=True)
    arguments = call_arguments(loaded, steps=STEPS)
    if width is not None:
        torch.manual_seed(0)
        held = {name: value for name, value in dict(pipe.transformer.config).items() if not name.startswith("_")}
        pipe.transformer = type(pipe.transformer)(
            **{**held, "num_attention_heads": width // held["attention_head_dim"]}
        )
        pipe.transformer.eval().requires_grad_(False)
    dense = pipe.transformer
    calls = record_calls(dense, lambda: call_pipeline(loaded, prompts, [TRAIN_SEED, TRAIN_SEED + 1], arguments))
    students = twins(dense, calls)
    asked = loaded.pocket.prompts(1, "held_out")
    held_out = record_calls(dense, lambda: call_pipeline(loaded, asked, [HELD_SEED], arguments))
    with torch.no_grad():
        wanted = [dense(**{**call, "return_dict": False})[0] for call in held_out]
    power = sum(float(one.square().mean()) for one in wanted)
    errors = {}
    for name, (student, _) in students.items():
        with torch.no_grad():
            given = [student(**{**call, "return_dict": False})[0] for call in held_out]
        apart = zip(given, wanted, strict=True)
        errors[name] = sum(float((one - other).square().mean()) for one, other in apart) / power
    models = {"dense": dense, **{name: student for name, (student, _) in students.items()}}

    def calling(model: Any) -> None:
        with torch.no_grad():
            for call in held_out:
                model(**call)

    def running(model: Any) -> None:
        pipe.transformer = model
        call_pipeline(loaded, asked, [HELD_SEED], arguments)

    def dialled(model: Any) -> None:
        pipe.transformer = model
        with outpace.accelerate(pipe, speedup=SPEEDUP):
            call_pipeline(loaded, asked, [HELD_SEED], arguments)

    return {
        "width": dense.config.num_attention_heads * dense.config.attention_head_dim,
        "trained": width is None,
        "steps": STEPS,
        "speedup": SPEEDUP,
        "calls_a_run": len(held_out),
        "flops": {"dense": 1.0, **{name: share for name, (_, share) in students.items()}},
        "error_before": errors if width is None else {},
        "calls": in_turns(models, calling, repetitions),
        "runs": in_turns(models, running, repetitions),
        "dialled": in_turns(models, dialled, repetitions),
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "environment": environment("cpu"),
    }


def main() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5, help="of every run")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    found = [measured(chosen.repetitions, width) for width in (None, 384)]
    write_whole(PHOTO, json.dumps({"schema": 1, "measured": found}, indent=1) + "\n")
    page_of()
    for one in found:
        print(json.dumps({name: one[name] for name in ("width", "flops", "error_before", "calls", "runs", "dialled")}))


if __name__ == "__main__":
    main()
