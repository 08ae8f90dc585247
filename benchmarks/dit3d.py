"""How near the clouds of the pocket `dit3d` come to the shapes it was trained on; what its variants cost; and how fast.

    make bench-dit3d   # or: python benchmarks/dit3d.py [--model FOLDER] [--clouds COUNT] [--out FOLDER]

Made clouds against as many that no training step has drawn, as many of each class: 1-NNA (0.5: cannot be told apart, 1:
always) and coverage, by Chamfer and by earth mover's distance. Beside the trained model stand the untrained one and a
second sample of the data, which is the best there is. Blocks of the pocket `dit` (digits, in two dimensions) are tried
as a start, in full and with few parameters trained. Time is that of the process, plain and accelerated in turn.
Writes benchmarks/results/dit3d.json and docs/results_dit3d.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

import outpace
from outpace.evaluation.atomic import make_folder, write_json
from outpace.evaluation.environment import environment
from outpace.evaluation.metrics.point_clouds import DISTANCES, set_scores
from outpace.evaluation.timing import span
from outpace.files import write_text
from outpace.pipelines.dit3d import ATTENTIONS, DiT3DTransformerModel, small_parameters
from outpace.pipelines.pocket.dit3d import DiT3DRecipe, assemble, build_denoiser, shape_loss, start
from outpace.pipelines.pocket.recipes import POCKETS
from outpace.pipelines.pocket.shapes import SHAPES, draw_shapes, shape_residuals

ROOT = Path(__file__).resolve().parent.parent
FIRST_SEED = 60_000
STEPS = 50
METHODS = {"GatedTaylor()": outpace.GatedTaylor(), "GatedTaylor(threshold=0)": outpace.GatedTaylor(threshold=0.0)}


def make(pipe: Any, labels: list[int], steps: int = STEPS, first: int = FIRST_SEED) -> np.ndarray:
    """A cloud a label, called as the pocket is."""
    clouds = []
    for begin in range(0, len(labels), 16):
        part = labels[begin : begin + 16]
        generators = [torch.Generator().manual_seed(first + begin + index) for index in range(len(part))]
        made = pipe(part, generator=generators, num_inference_steps=steps, output_type="pt", **POCKETS["dit3d"].call)
        clouds.append(made.points.numpy())
    return np.concatenate(clouds)


def measure_sets(pipe: Any, count: int) -> dict[str, dict[str, float]]:
    """Scores of the trained model, of the untrained, and of the data itself, to one held-out set."""
    labels = [index % len(SHAPES) for index in range(count)]
    classes = torch.tensor(labels)
    reference, again = (
        draw_shapes(count, torch.Generator().manual_seed(seed), classes=classes)[0].numpy() for seed in (70_001, 70_002)
    )
    untrained = assemble(build_denoiser(DiT3DRecipe()))
    untrained.set_progress_bar_config(disable=True)
    sets = {"trained": make(pipe, labels), "untrained": make(untrained, labels), "data again": again}
    found: dict[str, dict[str, float]] = {}
    for name, clouds in sets.items():
        found[name] = {
            f"{score} {distance}": value
            for distance in DISTANCES
            for score, value in set_scores(list(clouds), list(reference), distance).items()
        }
        residuals = np.stack([shape_residuals(cloud) for cloud in clouds])
        found[name]["class read"] = float((residuals.argmin(1) == np.array(labels)).mean())
        found[name]["distance from its surface"] = float(residuals[range(count), labels].mean())
        print(name, found[name], flush=True)
    return found


def loss_of(model: Any, seed: int = 12_345) -> float:
    """The loss on clouds and noise that are always the same."""
    with torch.no_grad():
        return float(np.mean([float(shape_loss(model, torch.Generator().manual_seed(seed + i), 32)) for i in range(4)]))


def measure_transfer(steps: int, seeds: int) -> list[dict[str, Any]]:
    """Short trainings on shapes: from nothing, from the digits' blocks, and with few parameters trained of those."""
    image = outpace.load_pocket("dit").transformer
    settings = {"voxel_size": 16, "patch_size": 4, "num_embeds_ada_norm": len(SHAPES)}
    shared = ("num_attention_heads", "attention_head_dim", "num_layers")
    rows = []
    for way in ("from nothing", "from digits", "from digits, few parameters"):
        losses = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            if way == "from nothing":
                model = start(DiT3DTransformerModel(**{k: image.config[k] for k in shared}, **settings))
            else:
                model = DiT3DTransformerModel.from_image(image, **settings)
                torch.nn.init.zeros_(model.proj_out_2.weight)
            model.eval()
            few = small_parameters(model) if way.endswith("few parameters") else list(model.parameters())
            rule = torch.optim.AdamW(few, lr=2e-3, weight_decay=0.0)
            for step in range(steps):
                for group in rule.param_groups:
                    group["lr"] = 2e-3 * min(1.0, (step + 1) / 10)
                rule.zero_grad()
                shape_loss(model, torch.Generator().manual_seed(seed * 10_000 + step), 16).backward()
                torch.nn.utils.clip_grad_norm_(few, 1.0)
                rule.step()
            losses.append(loss_of(model))
        share = sum(w.numel() for w in few) / sum(w.numel() for w in model.parameters())
        rows.append({"start": way, "trained share": share, "losses": losses, "steps": steps})
        print(rows[-1], flush=True)
    return rows


def measure_attentions() -> list[dict[str, Any]]:
    """Time of one call with 512 tokens, every block of the kind, in windows of 4 a side."""
    rows, models = [], {}
    for name in ATTENTIONS:
        settings = {"voxel_size": 16, "patch_size": 2, "attention": name, "window_size": 4}
        models[name] = build_denoiser(DiT3DRecipe(), **settings, window_blocks=list(range(6))).eval()
    clouds, time = torch.randn(4, 256, 3), torch.tensor(500)
    with torch.no_grad():
        for model in models.values():
            model(clouds, time)
        taken = [{n: span(partial(m, clouds, time)).cpu for n, m in models.items()} for _ in range(9)]
    for name in models:
        rows.append({"attention": name, "share of global": statistics.median(t[name] / t["global"] for t in taken)})
    return rows


def make_into(made: list[np.ndarray], pipe: Any, label: int, first: int) -> None:
    made.append(make(pipe, [label], first=first))


def measure_speed(pipe: Any, method: Any, rounds: int) -> dict[str, Any]:
    """Plain and accelerated in turn, one cloud a call: time, work, and how far points end from where they would."""
    ratios, moved, work = [], [], []
    for turn in range(rounds):
        made: list[np.ndarray] = []
        call = partial(make_into, made, pipe, turn % len(SHAPES), FIRST_SEED + 500 + turn)
        plain = span(call)
        with outpace.accelerate(pipe, method) as run:
            faster = span(call)
        work.append(run.trace.totals()["predicted_speedup"] or 1.0)
        ratios.append(plain.cpu / faster.cpu)
        moved.append(float(np.linalg.norm(made[0] - made[1], axis=-1).mean()))
    return {
        "speed-up of process time": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "predicted speed-up": statistics.median(work),
        "points moved by": statistics.mean(moved),
        "identical": max(moved) == 0.0,
        "pairs": rounds,
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as docs/results_dit3d.md."""
    lines = [
        "# DiT-3D on procedural shapes: measured",
        "",
        f"Written by `{report['command']}`; nothing here is typed in. How it works: [dit3d.md](dit3d.md).",
        "",
        f"{report['clouds']} clouds of 256 points, as many of each class, against as many that no training step has "
        f"drawn; {STEPS} steps, called with {report['call']}. 1-NNA: 0.5 cannot be told from the data, 1 always can. "
        "COV: share of the data's clouds that are nearest to some made one, more is better.",
        "",
    ]
    names = list(report["sets"]["trained"])
    lines += [f"| clouds | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for name, row in report["sets"].items():
        lines.append(f"| {name} | {' | '.join(f'{row[key]:.3f}' for key in names)} |")
    lines += [
        "",
        "The class is read by fitting each of the four shapes to the points; the distance is the mean one from the "
        "fitted surface of the class that was asked for.",
        "",
        "## Blocks from an image model",
        "",
        "The 24 blocks of the pocket `dit`, trained on pictures of digits, as a start for shapes; the layers before "
        f"and behind are new. Loss on the same held-out clouds after {report['transfer'][0]['steps']} steps, batch 16, "
        "one column a seed. Few parameters: scales, biases and class embeddings, with the new layers.",
        "",
        "| start | parameters trained | "
        + " | ".join(f"{i}" for i in range(len(report["transfer"][0]["losses"])))
        + " |",
        "| --- | ---: |" + " ---: |" * len(report["transfer"][0]["losses"]),
    ]
    for row in report["transfer"]:
        cells = " | ".join(f"{loss:.4f}" for loss in row["losses"])
        lines.append(f"| {row['start']} | {row['trained share']:.1%} | {cells} |")
    lines += [
        "",
        "## Attention",
        "",
        "Process time of one call with 8 x 8 x 8 tokens, windows of 4 x 4 x 4 in every block, as a share of global "
        "attention; untrained weights, median of 9 turns.",
        "",
        "| attention | time |",
        "| --- | ---: |",
        *(f"| {row['attention']} | {row['share of global']:.2f} |" for row in report["attentions"]),
        "",
        "## Faster",
        "",
        "Plain and accelerated in turn, one cloud a call. Moved: mean distance of a point from where the plain "
        "pipeline puts it; shapes are about 1 wide.",
        "",
        "| method | speed-up, process time | least to most | predicted | points moved by |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in report["speed"].items():
        near = "identical" if row["identical"] else f"{row['points moved by']:.4f}"
        reach = f"{row['least']:.2f} to {row['most']:.2f}"
        speed = f"{row['speed-up of process time']:.2f}x"
        lines.append(f"| `{name}` | {speed} | {reach} | {row['predicted speed-up']:.2f}x | {near} |")
    lines += ["", "## Where", "", *(f"- {name}: {value}" for name, value in report["environment"].items()), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="dit3d", metavar="FOLDER", help="one made by training [default: the shipped]"
    )
    parser.add_argument("--clouds", type=int, default=64, metavar="COUNT", help="made and reference [default: 64]")
    parser.add_argument("--transfer-steps", type=int, default=80, metavar="COUNT", help="[default: 80]")
    parser.add_argument("--pairs", type=int, default=12, metavar="COUNT", help="timed pairs [default: 12]")
    parser.add_argument("--out", default=str(ROOT), metavar="FOLDER", help="[default: this repository]")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    pipe = outpace.load_pocket(Path(asked.model) if Path(asked.model).is_dir() else asked.model)
    report: dict[str, Any] = {
        "command": "python benchmarks/dit3d.py",
        "clouds": asked.clouds,
        "call": dict(POCKETS["dit3d"].call),
        "sets": measure_sets(pipe, asked.clouds),
        "speed": {name: measure_speed(pipe, method, asked.pairs) for name, method in METHODS.items()},
        "attentions": measure_attentions(),
        "transfer": measure_transfer(asked.transfer_steps, seeds=3),
        "environment": environment(),
    }
    folder = Path(asked.out)
    for place in (folder / "benchmarks" / "results", folder / "docs"):
        make_folder(place)
    write_json(folder / "benchmarks" / "results" / "dit3d.json", report)
    write_text(folder / "docs" / "results_dit3d.md", markdown(report))


if __name__ == "__main__":
    main()
