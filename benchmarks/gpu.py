"""Everything there is to know about a GPU, in one command and at most ten minutes: exactness first, then times.

    make bench-gpu                                   # exits with 2 where there is no CUDA
    python benchmarks/gpu.py --rehearse              # toy sizes on the CPU: does the whole path work?

In this order: every kernel against float64 (nothing is timed unless all agree); block-sparse attention at sparsity 0,
0.5, 0.8 and 0.9, at each size of block, beside the fastest dense attention installed; the passes over what is
remembered, beside plain torch and the rate of a copy; published geometries of random weights with step, hit and hook
times, memory, and the same compiled block by block. What no time was left for is named. Writes gpu_DEVICE.json and .md
into benchmarks/results, the hardware named in both.

Not yet run on a GPU: written, rehearsed on a CPU, and waiting for one.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import attention_gpu
import geometry_gpu
import torch

from outpace.evaluation.environment import environment
from outpace.kernels.forecast import COMBINE, SUMS, combination_error, combine
from outpace.kernels.linear_attention import gated_linear_attention
from outpace.kernels.moe import Experts, expert_ffn

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 540.0
"""Of ten minutes, what is left after starting."""
ATTENTION = ("FLUX 2048 x 2048", "Wan 2.1 14B 480p", "Wan 2.1 14B 720p", "HunyuanVideo 720p")
MODELS = ("flux.1", "wan2.1-14b", "qwen-image", "hunyuanvideo", "flux.2", "wan2.2-a14b")
PASSES = {"FLUX.1 1024 x 1024": (4096, 3072), "Wan 2.1 14B 720p": (75_600, 5120)}
"""Tokens and width of what a forecast reads and writes."""
TOLERANCES = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""Largest difference from float64, relative to the largest number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Where all is run, and until when."""

    attention: attention_gpu.Bench
    geometry: geometry_gpu.Bench
    rehearse: bool
    until: float

    @property
    def device(self) -> str:
        return self.attention.device

    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()


def exactness(setting: Setting) -> list[dict[str, Any]]:
    """Every kernel against float64, in every type that it takes here."""
    cases = attention_gpu.REHEARSAL[:1] if setting.rehearse else ()
    found = attention_gpu.check(cases, setting.attention)
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) * scale

    for dtype, tolerance in TOLERANCES.items():
        values, weights = [numbers(3, 1111) for _ in range(4)], [1.75, -1.0, 0.5]
        q, k, v = (numbers(1, 2, 100, 64, scale=0.3) for _ in range(3))
        decay = -numbers(1, 2, 100, 64).abs()
        x, up, down = numbers(200, 64), numbers(4, 64, 32, scale=0.1), numbers(4, 32, 64, scale=0.1)
        chosen, gates = torch.randint(0, 4, (200, 2), generator=generator), numbers(200, 2).abs()

        def run(kind: torch.dtype, device: str) -> dict[str, torch.Tensor]:
            def at(one: torch.Tensor) -> torch.Tensor:
                return one.to(device, kind)  # noqa: B023

            experts = Experts(activation="silu", up_EDH=at(up), down_EHO=at(down))  # noqa: B023
            return {
                "weighted sum": combine([at(v) for v in values[:3]], weights),  # noqa: B023
                "forecast error": combination_error([at(v) for v in values[:3]], weights, at(values[3])),  # noqa: B023
                "linear attention": gated_linear_attention(at(q), at(k), at(v), at(decay)),  # noqa: B023
                "routed experts": expert_ffn(at(x), experts, chosen.to(device), at(gates)),  # noqa: B023
            }

        truth = run(torch.float64, "cpu")
        for name, one in run(dtype, setting.device).items():
            error = float((one.double().cpu() - truth[name]).abs().max() / truth[name].abs().max())
            found.append(
                {
                    "case": name,
                    "dtype": str(dtype).removeprefix("torch."),
                    "output": error,
                    "agrees": error <= tolerance,
                }
            )
    return found


def passes(setting: Setting) -> list[dict[str, Any]]:
    """Weighted sums and errors of three values: times, rates, and the same in plain torch."""
    bench, lines = setting.attention, []
    sizes = {"toy": (256, 64)} if setting.rehearse else PASSES
    for name, (tokens, width) in sizes.items():
        values = [torch.randn(tokens, width, device=bench.device, dtype=bench.dtype) for _ in range(4)]
        into, weights, plain = torch.empty_like(values[0]), [1.75, -1.0, 0.25], COMBINE.backends[-1].run
        runs = {
            "copy": lambda: into.copy_(values[0]),  # noqa: B023
            "weighted sum": lambda: combine(values[:3], weights),  # noqa: B023
            "in plain torch": lambda: plain(values[:3], weights),  # noqa: B023
            "error": lambda: combination_error(values[:3], weights, values[3]),  # noqa: B023
            "error in plain torch": lambda: SUMS.backends[-1].run(values[:3], weights, values[3]),  # noqa: B023
        }
        times = {run: statistics.median(taken) for run, taken in bench.milliseconds(runs).items()}
        moved = {"copy": 2, "weighted sum": 4, "error": 4}
        lines.append(
            {
                "what": name,
                "megabytes": values[0].nbytes / 1e6,
                "milliseconds": times,
                "gigabytes_per_second": {run: n * values[0].nbytes / times[run] / 1e6 for run, n in moved.items()},
                "backend": COMBINE.last,
            }
        )
    return lines


def measure(setting: Setting) -> dict[str, Any]:
    """Everything but exactness, as far as time allows."""
    report: dict[str, Any] = {"attention": [], "passes": passes(setting), "geometries": [], "left_out": []}
    size = 512 if setting.rehearse else 8192
    report |= {"product_size": size, "product_tflops": attention_gpu.product_rate(setting.attention, size)}
    models = tuple(geometry_gpu.REHEARSAL)[:1] if setting.rehearse else MODELS
    cases = attention_gpu.REHEARSAL[:1] if setting.rehearse else attention_gpu.CASES
    wanted = [case for case in cases if setting.rehearse or case.name in ATTENTION]
    # The models first up to half of the time: attention is measured alone, models tell what it is worth.
    work: list[tuple[str, Any]] = [*(("geometries", name) for name in models[:3]), *(("attention", c) for c in wanted)]
    work += [("geometries", name) for name in models[3:]]
    longest = 1e-3
    for kind, one in work:
        name = one if isinstance(one, str) else one.name
        if setting.left() < longest:
            report["left_out"].append(name)
            continue
        begin = time.monotonic()
        if kind == "attention":
            report[kind].append(attention_gpu.time_case(one, setting.attention))
        else:
            report[kind].append(geometry_gpu.geometry(name, setting.geometry))
        if setting.device == "cuda":
            torch.cuda.empty_cache()
        longest = max(longest, time.monotonic() - begin)
    return report


def markdown(report: dict[str, Any]) -> str:
    """The tables, with everything needed to read them."""
    shared = {key: report[key] for key in ("environment", "made", "command", "dtype", "repeats")}
    of_dtype = {error["dtype"] for error in report["errors"]}
    attention = attention_gpu.markdown(
        shared
        | {"product_size": report["product_size"], "product_tflops": report["product_tflops"]}
        | {"errors": report["errors"], "cases": report["attention"]}
        | {"largest_errors": {d: max(e["output"] for e in report["errors"] if e["dtype"] == d) for d in of_dtype}}
    )
    lines = [
        f"# outpace on {report['environment']['device']}",
        "",
        f"{report['seconds']:.0f} seconds for all of it. Left out for want of time: "
        f"{', '.join(report['left_out']) or 'nothing'}.",
        "",
        "## Passes over what is remembered",
        "",
        "| tokens | MB | copy GB/s | sum of three ms | GB/s | in plain torch ms | error ms | in plain torch ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in report["passes"]:
        taken, rate = one["milliseconds"], one["gigabytes_per_second"]
        lines.append(
            f"| {one['what']} | {one['megabytes']:.0f} | {rate['copy']:.0f} | {taken['weighted sum']:.3f} "
            f"| {rate['weighted sum']:.0f} | {taken['in plain torch']:.3f} | {taken['error']:.3f} "
            f"| {taken['error in plain torch']:.3f} |"
        )
    geometry = geometry_gpu.markdown(
        shared | {key: report[key] for key in ("pattern", "rounds", "calls", "compiler", "geometries")}
    )
    return "\n".join([*lines, "", attention.replace("\n# ", "\n## "), geometry])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on the CPU, to see that the script works")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="no new measurement starts that would end later")
    parser.add_argument("--out", type=Path, help="folder for the results")
    chosen = parser.parse_args()
    if not chosen.rehearse and not torch.cuda.is_available():
        print("no CUDA device here: run this on a machine with one, or with --rehearse to try it", file=sys.stderr)
        return 2
    begin = time.monotonic()
    on_gpu = attention_gpu.Bench(device="cuda", backend="triton", dtype=torch.bfloat16, repeats=5)
    models = geometry_gpu.Bench(device="cuda", dtype=torch.bfloat16, calls=8, rounds=2, compiler="inductor")
    setting = Setting(attention=on_gpu, geometry=models, rehearse=chosen.rehearse, until=begin + chosen.seconds)
    if chosen.rehearse:
        toy = attention_gpu.Bench(device="cpu", backend="torch", dtype=torch.float32, repeats=1)
        small = replace(models, device="cpu", dtype=torch.float32, rounds=1, compiler="eager")
        setting = replace(setting, attention=toy, geometry=small)
    with torch.no_grad():
        errors = exactness(setting)
        wrong = [error for error in errors if not error["agrees"]]
        for error in wrong:
            print(f"wrong: {json.dumps(error)}", file=sys.stderr)
        if wrong:
            print(f"{len(wrong)} of {len(errors)} checks against float64 failed: nothing was timed", file=sys.stderr)
            return 1
        measured = measure(setting)
    pattern = geometry_gpu.PATTERN
    report: dict[str, Any] = {
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": "make bench-gpu" if not chosen.rehearse else "python benchmarks/gpu.py --rehearse",
        "environment": environment(setting.device),
        "seconds": time.monotonic() - begin,
        "dtype": str(setting.attention.dtype).removeprefix("torch."),
        "repeats": setting.attention.repeats,
        "calls": setting.geometry.calls,
        "rounds": setting.geometry.rounds,
        "compiler": setting.geometry.compiler,
        "pattern": f"Computed are {pattern.warmup} steps and then every third, the others forecast from two",
        "errors": errors,
        **measured,
    }
    folder = chosen.out or (ROOT / "out" / "bench" if chosen.rehearse else ROOT / "benchmarks" / "results")
    folder.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"[^a-z0-9]+", "-", report["environment"]["device"].lower()).strip("-")
    stem = folder / f"gpu_{device}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))
    print(f"{stem}.json, {stem}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
