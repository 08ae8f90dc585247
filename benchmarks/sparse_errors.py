"""What sparse attention costs the picture: by layer, head, noise level and age of the blocks, everything else dense.

    make bench-sparse-errors     # or: python benchmarks/sparse_errors.py [--prompts COUNT] [--at-most COUNT]

On the pocket `wan-long`, calibration prompts. At some steps of a plain run the denoiser is called again with blocks
left out of one layer, one head or all layers; the error is how far its output moves. What was measured is kept prompt
by prompt in benchmarks/results/sparse_errors.json, so that a run that was stopped goes on; --at-most bounds how many
prompts one run adds. Writes docs/results_sparse_errors.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.by_prompt import asked, known
from outpace.accel import AdaSpa
from outpace.accel.calibration.attention_costs import DENSITIES, Look, SparseProbe, Variant, at_looks
from outpace.evaluation.atomic import write_json
from outpace.evaluation.environment import environment
from outpace.files import write_text
from outpace.pipelines import POCKETS, load_pocket

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "sparse_errors.json"
PAGE = ROOT / "docs" / "results_sparse_errors.md"
POCKET, STEPS, LOOKS, PROMPTS = "wan-long", 12, 4, 4
RECALL, BLOCK = 0.95, (128, 64)


def variants(layers: int, heads: int) -> list[Variant]:
    """All layers with blocks of every age, every layer, every head."""
    every = tuple(range(layers))
    return [
        *(Variant(layers=every, age=age) for age in range(LOOKS)),
        *(Variant(layers=(layer,)) for layer in every),
        *(Variant(layers=(layer,), head=head) for layer in every for head in range(heads)),
    ]


def measure(pipe: Any, prompt: str, seed: int, pocket: Any, steps: int) -> list[dict[str, Any]]:
    """The looks of one prompt, as plain data."""
    settings = AdaSpa(recall=RECALL, block=BLOCK, min_gain=0.0, min_tokens=1, slack=0.0)
    probe = SparseProbe(pipe, settings, list(at_looks(steps, LOOKS)), variants)

    def run() -> None:
        generator = torch.Generator().manual_seed(seed)
        pipe(prompt, num_inference_steps=steps, generator=generator, output_type="latent", **pocket)

    return [plain_data(look) for look in probe.run(run)]


def plain_data(look: Look) -> dict[str, Any]:
    """One look, ready for JSON."""
    return {
        "step": look.step,
        "level": look.level,
        "weight": look.weight,
        "density": look.density,
        "recall": look.recall,
        "own": look.own,
        "all": {str(v.age): e for v, e in look.errors.items() if len(v.layers) > 1},
        "layers": [e for v, e in look.errors.items() if len(v.layers) == 1 and v.head is None],
        "heads": [[v.layers[0], v.head, e] for v, e in look.errors.items() if v.head is not None],
    }


def mean_over(runs: Sequence[Sequence[dict[str, Any]]], value: Callable[[dict[str, Any]], float]) -> list[float]:
    """At every look, the mean over the prompts."""
    return [fmean(value(looks[at]) for looks in runs) for at in range(len(runs[0]))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of numbers behind their names."""
    return [
        f"| {' | '.join(head)} |",
        f"| --- |{' ---: |' * (len(head) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def page(report: dict[str, Any]) -> str:
    """docs/results_sparse_errors.md."""
    runs = list(report["prompts"].values())
    first = runs[0]
    levels = [f"{look['level']:.2f}" for look in first]
    layers, heads = len(first[0]["density"]), len(first[0]["density"][0])
    lines = [
        "# What sparse attention costs, and where",
        "",
        "Written by `python benchmarks/sparse_errors.py`; nothing here is typed in. What follows from it: "
        "[sparse attention](sparse_attention.md).",
        "",
        f"Pocket `{POCKET}`, {len(runs)} calibration prompts, {STEPS} steps, looked at {len(first)} of them. Recall "
        f"{RECALL:g} in blocks of {BLOCK[0]} x {BLOCK[1]}, everything else dense. An error is the relative L2 distance "
        "of the denoiser's output from the plain one, in percent, mean over the prompts.",
        "",
        "## By noise level and age of the blocks",
        "All layers at once. The age is counted in looks, each of which is "
        f"{STEPS / LOOKS:g} of the {STEPS} steps; the weight is what an error counts in the picture, by the noise "
        "level at which it is made.",
        "",
    ]
    ages = sorted({age for look in first for age in look["all"]}, key=int)
    rows = []
    for age in ages:
        cells = [
            percent(fmean(looks[at]["all"][age] for looks in runs)) if age in first[at]["all"] else ""
            for at in range(len(first))
        ]
        rows.append([f"blocks of {age} looks ago" if int(age) else "fresh blocks", *cells])
    weights = mean_over(runs, lambda look: look["weight"])
    fresh = mean_over(runs, lambda look: look["all"]["0"])
    counted = [w * e for w, e in zip(weights, fresh, strict=True)]
    rows.append(["weight of an error", *(f"{w:.3f}" for w in weights)])
    rows.append(["share of what fresh blocks cost, by that weight", *(f"{c / sum(counted):.0%}" for c in counted)])
    lines += table(["at noise level", *levels], rows)
    lines += ["## By layer", "One layer alone. Density is the share of its blocks that the recall needs.", ""]
    rows = []
    for layer in range(layers):
        density = fmean(fmean(look["density"][layer]) for looks in runs for look in looks)
        errors = mean_over(runs, lambda look, layer=layer: look["layers"][layer])
        rows.append([str(layer), f"{density:.2f}", *map(percent, errors), f"{100 * fmean(errors) / (1 - density):.2f}"])
    together = mean_over(runs, lambda look: sum(e**2 for e in look["layers"]) ** 0.5)
    rows.append(["root of the sum of squares", "", *map(percent, together), ""])
    rows.append(["all at once", "", *map(percent, fresh), ""])
    lines += table(["layer", "density", *levels, "error a saved share"], rows)
    lines += [
        "## By head",
        "One head alone. Beside it, how its own output's squared error falls when it is given more blocks, as a share "
        f"of what it is at a density of {DENSITIES[-1]:g}.",
        "",
    ]
    rows = []
    for layer in range(layers):
        for head in range(heads):
            density = fmean(look["density"][layer][head] for looks in runs for look in looks)
            errors = mean_over(
                runs, lambda look, at=(layer, head): next(e for lay, h, e in look["heads"] if (lay, h) == at)
            )
            own = [
                fmean(look["own"][layer][head][d] for looks in runs for look in looks) for d in range(len(DENSITIES))
            ]
            rows.append(
                [
                    f"{layer}.{head}",
                    f"{density:.2f}",
                    *map(percent, errors),
                    f"{100 * fmean(errors) / (1 - density):.2f}",
                    *(f"{value / own[-1]:.4f}" for value in own[:-1]),
                ]
            )
    lines += table(
        ["layer.head", "density", *levels, "error a saved share", *(f"own at {d:g}" for d in DENSITIES[:-1])], rows
    )
    lines += ["## How it was measured", ""]
    lines += [f"- {name}: {value}" for name, value in report["environment"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = asked(__doc__.splitlines()[0], prompts=PROMPTS, result=RESULT, page=PAGE)
    torch.set_num_threads(1)
    report = known(options.result)
    pocket = POCKETS[POCKET]
    missing = [
        (seed, prompt)
        for seed, prompt in enumerate(pocket.prompts(options.prompts, "calibration"))
        if f"{seed} {prompt}" not in report["prompts"]
    ]
    if missing[: options.at_most]:
        pipe = load_pocket(POCKET)
        pipe.set_progress_bar_config(disable=True)
        for seed, prompt in missing[: options.at_most]:
            begin = time.process_time()
            report["prompts"][f"{seed} {prompt}"] = measure(pipe, prompt, seed, pocket.call, STEPS)
            report |= {"command": "python benchmarks/sparse_errors.py", "environment": environment()}
            write_json(options.result, report)
            print(f"{prompt}: {time.process_time() - begin:.0f} s", file=sys.stderr, flush=True)
    write_text(options.page, page(report))


if __name__ == "__main__":
    main()
