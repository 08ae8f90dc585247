"""Published geometries on a GPU: what a step costs, a forecast step, and watching; memory; and torch.compile.

    python benchmarks/geometry_gpu.py [--models NAME ...] [--out FOLDER]     # exits with 2 where there is no CUDA
    python benchmarks/geometry_gpu.py --rehearse                             # tiny geometries on the CPU: does it work?

The denoiser of each model is built in bfloat16 with RANDOM weights and called for one sample at the model's own size.
Times and memory do not depend on the values of weights; pictures do, so none is made and nothing is said of fidelity,
and the steps that are computed are no gate's choice but a pattern: two, then every third. Plain calls, calls watched by
a method that skips nothing, and the pattern take turns; medians are shown. Writes geometry_DEVICE.json and .md into
benchmarks/results.

Not yet run on a GPU: written, rehearsed on a CPU, and waiting for one.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from outpace.accel import GatedTaylor, IntervalTaylor, accelerate
from outpace.accel.estimate import flops
from outpace.accel.estimate.sample import Sample, sample_of
from outpace.accel.estimate.source import build_on_meta, settings_of
from outpace.evaluation.environment import environment
from outpace.evaluation.timing import span

ROOT = Path(__file__).resolve().parent.parent
MODELS = (
    "dit-xl-2",
    "sd3.5-medium",
    "sd3.5-large",
    "flux.1",
    "qwen-image",
    "flux.2",
    "wan2.1-1.3b",
    "wan2.2-5b",
    "wan2.1-14b",
    "wan2.2-a14b",
    "hunyuanvideo",
)
HEADS = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4}
REHEARSAL = {
    "toy flux": (
        "FluxTransformer2DModel",
        {
            **HEADS,
            "num_layers": 2,
            "num_single_layers": 2,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "axes_dims_rope": (2, 4, 2),
        },
        {"height": 64, "width": 64},
    ),
    "toy wan": (
        "WanTransformer3DModel",
        {**HEADS, "out_channels": 4, "num_layers": 3, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32},
        {"height": 64, "width": 64, "frames": 5},
    ),
}
WATCHING = GatedTaylor(threshold=0.0)
"""Sees every call, remembers outputs, skips nothing."""
PATTERN = IntervalTaylor(interval=3, order=1, warmup=2, cooldown=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Where and how all is run."""

    device: str
    dtype: torch.dtype
    calls: int
    """Calls of one pass."""
    rounds: int
    compiler: str
    """Backend of torch.compile."""


class Denoiser:
    """One geometry with random weights, and the arguments of its calls."""

    def __init__(self, sample: Sample, bench: Bench) -> None:
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(bench.dtype)
        try:
            with torch.device(bench.device):
                made: Any = type(sample.transformer)(**settings_of(sample.transformer))
        finally:
            torch.set_default_dtype(before)
        self.transformer: Any = made.eval().requires_grad_(False)
        self.bench = bench
        self.arguments = {name: self._value(name, value) for name, value in sample.inputs.items()}

    def _value(self, name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if not value.is_floating_point() or name in ("guidance", "timestep"):
            return torch.ones(value.shape, dtype=value.dtype, device=self.bench.device)
        if name.endswith("_ids"):
            return torch.zeros(value.shape, device=self.bench.device)
        return torch.randn(value.shape, device=self.bench.device, dtype=self.bench.dtype)

    def milliseconds(self) -> list[float]:
        """Times of the calls of one pass, noise level by noise level."""
        times = []
        for call in range(self.bench.calls):
            level = 1000 - 900 * call // self.bench.calls
            given = {**self.arguments, "timestep": torch.full_like(self.arguments["timestep"], level)}
            times.append(1e3 * span(lambda given=given: self._call(given), self.bench.device).wall)
        return times

    def _call(self, given: dict[str, Any]) -> None:
        named = self.transformer.cache_context("cond") if hasattr(self.transformer, "cache_context") else nullcontext()
        with named:
            self.transformer(**given, return_dict=False)


def measure(denoiser: Denoiser) -> dict[str, Any]:
    """Plain, watched and patterned passes in turns, after one turn that is not counted."""
    plain: list[list[float]] = []
    watched: list[list[float]] = []
    patterned: list[list[float]] = []
    peaks: dict[str, int | None] = {}
    done: list[bool] = []
    warnings: list[str] = []
    for _ in range(denoiser.bench.rounds + 1):
        with Peak(denoiser.bench.device) as peak:
            plain.append(denoiser.milliseconds())
        peaks["plain"] = peak.bytes
        with accelerate(denoiser.transformer, WATCHING):
            watched.append(denoiser.milliseconds())
        with Peak(denoiser.bench.device) as peak, accelerate(denoiser.transformer, PATTERN) as run:
            patterned.append(denoiser.milliseconds())
            done, warnings = [all(call.computed) for call in run.trace.calls], run.trace.warnings
        peaks["pattern"] = peak.bytes
    if all(done):
        raise RuntimeError(f"nothing was forecast, so there is nothing to measure: {warnings}")
    step = statistics.median(t for times in plain[1:] for t in times)
    forecast = [t for times in patterned[1:] for t, computed in zip(times, done, strict=True) if not computed]
    computed = [t for times in patterned[1:] for t, computed in zip(times, done, strict=True) if computed]
    return {
        "step_milliseconds": step,
        "watched_milliseconds": statistics.median(t for times in watched[1:] for t in times),
        "overhead": statistics.median(sum(w) / sum(p) for w, p in zip(watched[1:], plain[1:], strict=True)) - 1,
        "computed_milliseconds": statistics.median(computed),
        "forecast_milliseconds": statistics.median(forecast),
        "forecast_of_step": statistics.median(forecast) / step,
        "computed_share": sum(done) / len(done),
        "speedup": statistics.median(sum(p) / sum(q) for p, q in zip(plain[1:], patterned[1:], strict=True)),
        "peak_bytes": peaks,
    }


class Peak:
    """The most device memory that was allocated inside the block; None on a CPU."""

    def __init__(self, device: str) -> None:
        self.on_gpu, self.bytes = device.startswith("cuda"), None

    def __enter__(self) -> Peak:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *_: object) -> None:
        if self.on_gpu:
            self.bytes = torch.cuda.max_memory_allocated()


def compiled(denoiser: Denoiser) -> dict[str, Any]:
    """The same with the blocks compiled: how long that takes, whether graphs break, whether forecasting adds any."""
    torch.compiler.reset()
    counters.clear()
    try:
        denoiser.transformer.compile_repeated_blocks(backend=denoiser.bench.compiler)
        begin = time.perf_counter()
        denoiser.milliseconds()
        seconds, graphs = time.perf_counter() - begin, counters["stats"]["unique_graphs"]
        found = measure(denoiser)
    except (TorchDynamoException, RuntimeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    return found | {
        "first_pass_seconds": seconds,
        "graphs": graphs,
        "graphs_added": counters["stats"]["unique_graphs"] - graphs,
        "graph_breaks": sum(counters["graph_break"].values()),
    }


def geometry(name: str, bench: Bench) -> dict[str, Any]:
    """Everything that is measured of one model; its error where it does not fit or run here."""
    if name in REHEARSAL:
        cls, config, size = REHEARSAL[name]
        source: str | nn.Module = build_on_meta(cls, config)
    else:
        source, size = name, {}
    told = flops(source, dtype=str(bench.dtype).removeprefix("torch."), guidance=False, **size)
    copies = told.weights_bytes // (told.parameters * bench.dtype.itemsize)
    facts: dict[str, Any] = {
        "model": name,
        "transformer": told.transformer,
        "size": [told.width, told.height, told.frames],
        "parameters": told.parameters,
        "flops_per_call": told.flops_per_call,
        "remembered_bytes": told.kept[0].bytes // copies,  # of order 1, as the pattern's forecast is
    }
    try:
        denoiser = Denoiser(sample_of(source, calls=1, **size), bench)
        eager = measure(denoiser)
        facts["eager"] = eager
        left = eager["computed_share"] * told.flops_per_call + (1 - eager["computed_share"]) * told.forecast_flops
        facts["at_most"] = told.flops_per_call / left
        facts["tflops"] = told.flops_per_call / eager["step_milliseconds"] / 1e9
        facts["compiled"] = compiled(denoiser)
    except torch.OutOfMemoryError as error:
        facts["error"] = f"does not fit: {str(error).splitlines()[0]}"
    return facts


def markdown(report: dict[str, Any]) -> str:
    """The tables, with everything needed to read them."""
    where = report["environment"]
    lines = [
        f"# Published geometries on {where['device']}",
        "",
        f"{report['dtype']}, torch {where['torch']}, diffusers {where['diffusers']}, {report['made']}. "
        f"Weights are random: times and memory are real, pictures would not be. One sample, one call a step. "
        f"{report['pattern']}; medians of "
        f"{report['rounds']} rounds of {report['calls']} calls. Command: `{report['command']}`.",
        "",
        "| model | size | step ms | TFLOP/s | watched, nothing skipped | forecast step ms | of a step | speed-up "
        "| at most | peak GB | with history | remembered |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for facts in report["geometries"]:
        if "error" not in facts:
            e, peaks = facts["eager"], facts["eager"]["peak_bytes"]
            lines.append(
                f"| {facts['model']} | {size_of(facts)} | {e['step_milliseconds']:.1f} | {facts['tflops']:.3g} "
                f"| {100 * e['overhead']:+.1f} % | {e['forecast_milliseconds']:.2f} | {e['forecast_of_step']:.3f} "
                f"| {e['speedup']:.2f} | {facts['at_most']:.2f} | {gigabytes(peaks['plain'])} "
                f"| {gigabytes(peaks['pattern'])} | {gigabytes(facts['remembered_bytes'])} |"
            )
    lines += [
        "",
        f"Blocks compiled with `compile_repeated_blocks`, backend {report['compiler']}:",
        "",
        "| model | first pass s | step ms | forecast step ms | speed-up | graphs | added by forecasting "
        "| graph breaks |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for facts in report["geometries"]:
        c = facts.get("compiled", {})
        if c and "error" not in c:
            lines.append(
                f"| {facts['model']} | {c['first_pass_seconds']:.1f} | {c['step_milliseconds']:.1f} "
                f"| {c['forecast_milliseconds']:.2f} | {c['speedup']:.2f} | {c['graphs']} | {c['graphs_added']} "
                f"| {c['graph_breaks']} |"
            )
    failed = [
        f"{facts['model']}{words}: {found['error']}"
        for facts in report["geometries"]
        for words, found in (("", facts), (", compiled", facts.get("compiled", {})))
        if "error" in found
    ]
    return "\n".join([*lines, *(["", *failed] if failed else [])]) + "\n"


def size_of(facts: dict[str, Any]) -> str:
    width, height, frames = facts["size"]
    return f"{width} x {height}" + (f" x {frames}" if frames else "")


def gigabytes(found: int | None) -> str:
    return "" if found is None else f"{found / 1e9:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="tiny geometries on the CPU, to see that it works")
    parser.add_argument("--models", nargs="*", metavar="NAME", help="names of `outpace estimate list`")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every measurement")
    parser.add_argument("--out", type=Path, help="folder for the results")
    chosen = parser.parse_args()
    if not chosen.rehearse and not torch.cuda.is_available():
        print("no CUDA device here: run this on a machine with one, or with --rehearse to try it", file=sys.stderr)
        return 2
    if chosen.rehearse:
        bench = Bench(device="cpu", dtype=torch.float32, calls=8, rounds=2, compiler="eager")
    else:
        bench = Bench(device="cuda", dtype=torch.bfloat16, calls=11, rounds=chosen.rounds, compiler="inductor")
    names = chosen.models or (tuple(REHEARSAL) if chosen.rehearse else MODELS)
    found = []
    with torch.no_grad():
        for name in names:
            found.append(geometry(name, bench))
            if bench.device == "cuda":
                torch.cuda.empty_cache()
    report = {
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": f"python benchmarks/geometry_gpu.py {' '.join(sys.argv[1:])}".strip(),
        "environment": environment(bench.device),
        "dtype": str(bench.dtype).removeprefix("torch."),
        "weights": "random",
        "pattern": f"Computed are {PATTERN.warmup} steps and then every third, the others forecast from two",
        "calls": bench.calls,
        "rounds": bench.rounds,
        "compiler": bench.compiler,
        "geometries": found,
    }
    folder = chosen.out or (ROOT / "out" / "bench" if chosen.rehearse else ROOT / "benchmarks" / "results")
    folder.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"[^a-z0-9]+", "-", report["environment"]["device"].lower()).strip("-")
    stem = folder / f"geometry_{device}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))
    print(f"{stem}.json, {stem}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
