"""What converting the pocket `photo` saves on the clock, alone and under `speedup=`, beside what FLOPs promise.

    python benchmarks/dense2moe_photo.py [error] [256] [384] [384:compiled] [768:bfloat16:compiled] ...

Photographs of 256 tokens through 16 blocks of width 256, and twins of the same shape of other widths with random
weights: what a call takes does not depend on weights. Eager in float32, or blocks compiled, or in bfloat16. Nothing is
trained; the error is that of the start. Writes what is asked for into benchmarks/results/dense2moe_photo.json, from
which a section of docs/results_dense2moe.md is made. One thread; times are processor time, the models in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.dense2moe_page import PHOTO, page_of, write_whole
from benchmarks.dense2moe_ways import HELD_SEED, TRAIN_SEED, WAYS, WIDTH, flops_of

CONVERTED = ("taylor", "spread", "moe")
"""Ways that are measured."""
STEPS = 6
"""Denoising steps of a run."""
PRODUCTS = ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", "mkldnn")
"""Operators that count as matrix products, by how their names begin; attention is what has it in its name."""
SPEEDUP = 2.0


class Bench:
    """`photo`, or with another width a twin with random weights; what it is asked, and what is made of it."""

    def __init__(self, width: int, dtype: str = "float32") -> None:
        import torch

        from outpace.accel.experts import level_importance
        from outpace.accel.experts.calls import record_calls
        from outpace.pipelines.load import call_arguments, call_pipeline, load_pipeline

        self.loaded = load_pipeline("photo", dtype=getattr(torch, dtype), device="cpu", progress=False)
        self.pipe: Any = self.loaded.pipe
        self.pipe.set_progress_bar_config(disable=True)
        config: Any = self.pipe.transformer.config
        settings = {name: value for name, value in config.items() if not name.startswith("_")}
        own = config.num_attention_heads * config.attention_head_dim
        if width != own:
            torch.manual_seed(0)
            settings["num_attention_heads"] = width // config.attention_head_dim
            self.pipe.transformer = type(self.pipe.transformer)(**settings).eval().to(getattr(torch, dtype))
        self.dense = self.pipe.transformer.requires_grad_(False)
        arguments = call_arguments(self.loaded, steps=STEPS)

        def run(prompts: list[Any], seed: int) -> None:
            call_pipeline(self.loaded, prompts, [seed + place for place in range(len(prompts))], arguments)

        train, held = self.loaded.pocket.prompts(2, "train"), self.loaded.pocket.prompts(1, "held_out")
        self.run = lambda: run(held, HELD_SEED)
        self.calls = record_calls(self.dense, lambda: run(train, TRAIN_SEED))
        self.held = record_calls(self.dense, self.run)
        some = self.calls if width == own else self.calls[::3]  # of random weights a few do
        self.measured = level_importance(self.dense, some, 4)

    def student(self, way: str) -> tuple[Any, float]:
        """A converted copy as it is before anything is fitted, and its FLOPs relative to the dense ones."""
        from outpace.accel.experts import Conversion, Experts, convert, spread_experts

        kind, found = WAYS[way], self.measured
        scores = found.scores if kind.spread else {p: s.square().mean(0).sqrt() for p, s in found.scores.items()}
        if kind.layout is None:
            conversion = Conversion(width=WIDTH)
        elif kind.spread:
            counts = spread_experts(self.dense, found, kind.layout)
            conversion = Conversion(experts=Experts(layout=kind.layout), borders=found.borders, spread=counts)
        else:
            conversion = Conversion(experts=Experts(layout=kind.layout, scaling="one"))
        self.pipe.transformer = self.dense
        return convert(self.dense, conversion, importance=scores), flops_of(self.loaded, conversion)


def in_turns(models: dict[str, Any], run: Callable[[Any], None], repetitions: int) -> dict[str, dict[str, float]]:
    """Median processor seconds of `run(model)` of each, and the median of their ratios to the first."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(repetitions + 1):
        for name, model in models.items():
            start = time.process_time()
            run(model)
            if turn:  # the first of each warms up
                taken[name].append(time.process_time() - start)
    first = taken[next(iter(models))]
    return {
        name: {
            "seconds": statistics.median(some),
            "ratio": statistics.median(one / other for one, other in zip(some, first, strict=True)),
        }
        for name, some in taken.items()
    }


def times(what: str, repetitions: int) -> dict[str, Any]:
    """Of the calls of a run and of whole runs; of eager models in float32 under the dial, too.

    Args:
        what: a width, and what else holds: "384:compiled:bfloat16".
    """
    import torch

    import outpace

    width, *how = what.split(":")
    plain = not how
    bench = Bench(int(width), "bfloat16" if "bfloat16" in how else "float32")
    students = {way: bench.student(way) for way in (CONVERTED if plain else CONVERTED[:2])}
    models = {"dense": bench.dense, **{way: student for way, (student, _) in students.items()}}
    if "compiled" in how:
        for model in models.values():
            model.compile_repeated_blocks()

    def calls(model: Any) -> None:
        with torch.no_grad():
            for call in bench.held:
                model(**call)

    def runs(model: Any) -> None:
        bench.pipe.transformer = model
        bench.run()

    def dialled(model: Any) -> None:
        bench.pipe.transformer = model
        with outpace.accelerate(bench.pipe, speedup=SPEEDUP):
            bench.run()

    return {
        "steps": STEPS,
        "speedup": SPEEDUP,
        "flops": {way: share for way, (_, share) in students.items()},
        "calls": in_turns(models, calls, repetitions),
        "parts": {way: parts(lambda model=model: calls(model)) for way, model in models.items()},
        "runs": in_turns(models, runs, repetitions),
        **({"dialled": in_turns(models, dialled, repetitions)} if plain else {}),
    }


def parts(run: Callable[[], None]) -> dict[str, float]:
    """Shares of the time of `run()` that are matrix products, attention, and all else: norms, activations, copies."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    spent = {"products": 0.0, "attention": 0.0, "else": 0.0}
    for one in seen.key_averages():
        kind = "products" if one.key.startswith(PRODUCTS) else "attention" if "attention" in one.key else "else"
        spent[kind] += one.self_cpu_time_total
    return {kind: time / sum(spent.values()) for kind, time in spent.items()}


def errors() -> dict[str, float]:
    """Of every way before training, on a held-out prompt, relative to the mean square of the dense output."""
    import torch

    from outpace.accel.experts import start_experts, start_levels

    bench = Bench(256)

    def given(model: Any) -> Any:
        with torch.no_grad():
            return torch.stack([model(**{**call, "return_dict": False})[0] for call in bench.held])

    wanted, found = given(bench.dense), {}
    for way in CONVERTED:
        student, _ = bench.student(way)
        if way == "spread":
            found["spread, not fitted"] = float((given(student) - wanted).square().mean() / wanted.square().mean())
            start_levels(student, bench.calls)
        if way == "moe":
            start_experts(student, bench.calls)
        found[way] = float((given(student) - wanted).square().mean() / wanted.square().mean())
    return found


def main() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", metavar="WHAT", help="error, or a width whose times are taken")
    parser.add_argument("--repetitions", type=int, default=3, help="of every run")
    chosen = parser.parse_args()
    import torch

    from outpace.evaluation.environment import environment

    torch.set_num_threads(1)
    held = json.loads(PHOTO.read_text(encoding="utf-8")) if PHOTO.is_file() else {"schema": 1, "measured": {}}
    for what in chosen.what or ["error", "256", "384"]:
        told = {"error": errors()} if what == "error" else times(what, chosen.repetitions)
        made = {"made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "environment": environment("cpu")}
        held["measured"][what] = {**told, **made}
        write_whole(PHOTO, json.dumps(held, indent=1) + "\n")
        print(what, json.dumps(told), flush=True)
    page_of()


if __name__ == "__main__":
    main()
