"""What the pocket `lego` loses and saves where a brick is left out, and what it makes of canvases larger than its own.

    make bench-lego     # or: python benchmarks/lego.py [--model FOLDER] [--samples COUNT] [--out FOLDER]

Digits by class from noise that no training step has drawn. Feature distance: Frechet's, over what the shipped digit
reader sees, to digits of strokes that were held out. A seam ratio is the mean squared step from pixel to pixel across
the borders between bricks, divided by that of the two steps on either side of a border; 1 where no border shows. Time
is that of the process, plain and accelerated in turn. Writes benchmarks/results/lego.json and docs/results_lego.md.
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
from outpace.evaluation.metrics.frechet import frechet
from outpace.evaluation.timing import span
from outpace.files import write_text
from outpace.pipelines.lego import skip_brick
from outpace.pipelines.pocket.digits import TRAIN_COUNT, check_digits, digit_features, digit_strokes, render_digits

ROOT = Path(__file__).resolve().parent.parent
FIRST_SEED = 70_000
SHARES = (0.0, 0.3, 0.4, 1.0)
CANVASES = ((64, 64), (32, 96))
OVERLAPS = (0, 16)


def make(pipe: Any, count: int, steps: int, first: int = FIRST_SEED, **call: Any) -> np.ndarray:
    """`count` pictures, (count, Y, X, 3), of all classes in turn; sixteen a call."""
    made = []
    for start in range(first, first + count, 16):
        seeds = range(start, min(start + 16, first + count))
        labels = [seed % 10 for seed in seeds]
        generator = [torch.Generator().manual_seed(seed) for seed in seeds]
        made.append(pipe(labels, generator=generator, num_inference_steps=steps, output_type="np", **call).images)
    return np.concatenate(made)


def held_out_digits(count: int) -> np.ndarray:
    """Pictures of strokes that no training step has drawn, (count, Y, X, 3)."""
    strokes = digit_strokes()[0][TRAIN_COUNT:]
    chosen = torch.randint(0, len(strokes), (count,), generator=torch.Generator().manual_seed(8))
    return render_digits(strokes[chosen], torch.Generator().manual_seed(9)).permute(0, 2, 3, 1).numpy()


def count_calls(pipe: Any, method: Any, steps: int, guidance: float) -> list[int]:
    """How often each brick is really called in one run."""
    counts = [0] * len(pipe.transformer.bricks)

    def note(index: int, *_: Any) -> None:
        counts[index] += 1

    hooks = [brick.register_forward_hook(partial(note, index)) for index, brick in enumerate(pipe.transformer.bricks)]
    try:
        with outpace.accelerate(pipe, method):
            make(pipe, 1, steps, guidance_scale=guidance)
    finally:
        for hook in hooks:
            hook.remove()
    return counts


def measure_calls(pipe: Any, steps: int) -> list[dict[str, Any]]:
    """Calls of each brick beside those that the schedule asks for, with guidance and without."""
    rows = []
    for share in SHARES:
        for guidance in (1.0, 2.0):
            wanted = [steps, steps, round(steps * (1 - share))]
            calls = count_calls(pipe, skip_brick(pipe, share, steps=steps), steps, guidance)
            rows.append({"share": share, "guidance": guidance, "calls": calls, "wanted": wanted})
    return rows


def measure_quality(pipe: Any, share: float, samples: int, steps: int, features: np.ndarray) -> dict[str, Any]:
    """Distance to held-out digits, and how many digits are read as what was asked for."""
    with outpace.accelerate(pipe, skip_brick(pipe, share, steps=steps)):
        made = make(pipe, samples, steps)
    asked = [seed % 10 for seed in range(FIRST_SEED, FIRST_SEED + samples)]
    read = check_digits(list(made), asked)
    return {
        "share": share,
        "feature distance": frechet(digit_features(list(made)), features),
        "digits read as asked": float(np.mean([hit["digit"] for hit in read])),
    }


def measure_speed(pipe: Any, method: Any, steps: int, pairs: int, batch: int = 4) -> dict[str, Any]:
    """Plain and accelerated in turn: time, and how near the pictures are."""
    saved, near = [], []
    for turn in range(pairs):
        made: list[np.ndarray] = []

        def call(made: list[np.ndarray] = made, turn: int = turn) -> None:
            made.append(make(pipe, batch, steps, FIRST_SEED + 1000 + turn * batch))

        plain = span(call)
        with outpace.accelerate(pipe, method):
            faster = span(call)
        saved.append(1 - faster.cpu / plain.cpu)
        near.append(float(((made[0] - made[1]) ** 2).mean()))
    middle = statistics.median(saved)
    return {
        "saved": middle,
        "least": min(saved),
        "most": max(saved),
        "speed-up": 1 / (1 - middle),
        "psnr_decibel": None if max(near) == 0.0 else float(-10 * np.log10(np.mean(near))),
        "pairs": pairs,
    }


def seam_ratio(pictures: np.ndarray, side: int, reach: int | None = 2) -> float:
    """Squared steps across the borders of bricks of `side` pixels, beside those up to `reach` pixels from a border.

    With `reach` None, beside all others: then empty margins of a picture count as places without a border, and even
    drawn digits, which have none, are over 1.
    """
    across: list[np.ndarray] = []
    beside: list[np.ndarray] = []
    for axis in (1, 2):
        steps = np.moveaxis(np.diff(pictures, axis=axis) ** 2, axis, 0)
        places = np.arange(1, len(steps) + 1)
        borders = places[places % side == 0]
        if len(borders):
            from_border = np.abs(places[:, None] - borders).min(1)
            across.append(steps[from_border == 0].ravel())
            beside.append(steps[(from_border > 0) & (from_border <= (reach or len(steps)))].ravel())
    return float(np.concatenate(across).mean() / np.concatenate(beside).mean())


def seams(pictures: np.ndarray, sides: list[int]) -> dict[str, dict[str, float]]:
    """By the side of the bricks: seam ratios beside what is near, and beside all."""
    return {str(s): {"near": seam_ratio(pictures, s), "all": seam_ratio(pictures, s, None)} for s in sides}


def measure_canvas(pipe: Any, size: tuple[int, int], overlap: int, count: int, steps: int) -> dict[str, Any]:
    """How much the borders of each brick show on a canvas larger than the model's own."""
    made = make(pipe, count, steps, FIRST_SEED + 2000, height=size[0], width=size[1], overlap=overlap)
    sides = pipe.transformer.config["brick_sizes"]
    return {
        "size": list(made.shape[1:3]),
        "overlap": overlap,
        "finite": bool(np.isfinite(made).all()),
        "seams": seams(made, list(sides)),
        "mean": float(made.mean()),
        "deviation": float(made.std()),
    }


def in_cells(found: dict[str, dict[str, float]]) -> str:
    """Seam ratios as cells of a table."""
    return " | ".join(f"{ratio['near']:.2f} ({ratio['all']:.2f})" for ratio in found.values())


def markdown(report: dict[str, Any]) -> str:
    """The report as docs/results_lego.md."""
    lines = [
        "# LEGO: what bricks save and cost",
        "",
        f"Written by `{report['command']}`; nothing here is typed in. How it works: [lego.md](lego.md).",
        "",
        f"The pocket `lego`: bricks of {', '.join(map(str, report['bricks']))} pixels. {report['steps']} steps of "
        f"DPM++ over EDM's noise levels, no guidance, {report['samples']} digits; plain digits that were held out are "
        f"{report['floor']:.3f} from each other.",
        "",
        "## The image brick left out of the last steps",
        "",
        "| share of the steps | calls of each brick (guided) | feature distance | beside none left out | digits read |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    none = report["quality"][0]["feature distance"]
    for row in report["quality"]:
        calls = [
            f"{'/'.join(map(str, line['calls']))}" + ("" if line["calls"] == line["wanted"] else " (NOT AS ASKED)")
            for line in report["calls"]
            if line["share"] == row["share"]
        ]
        lines.append(
            f"| {row['share']:.1f} | {calls[0]} ({calls[1]}) | {row['feature distance']:.3f} | "
            f"{row['feature distance'] / none:.2f} | {row['digits read as asked']:.0%} |"
        )
    lines += [
        "",
        "## Time",
        "",
        "Plain and accelerated in turn, four digits a call. PSNR is that of accelerated against plain.",
        "",
        "| method | process time saved | least to most | speed-up | PSNR |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in report["speed"].items():
        near = "identical" if row["psnr_decibel"] is None else f"{row['psnr_decibel']:.1f} dB"
        lines.append(
            f"| {name} | {row['saved']:.0%} | {row['least']:.0%} to {row['most']:.0%} | {row['speed-up']:.2f}x "
            f"| {near} |"
        )
    lines += [
        "",
        "## Canvases larger than in training (32 x 32)",
        "",
        "Squared steps from pixel to pixel across the borders of bricks of each size (the last is the image brick's), "
        "beside the two steps on either side of a border; in brackets, beside all other steps, of which a picture's "
        "empty margins are many: drawn digits have no bricks and are over 1 there, too. "
        f"{report['count']} pictures each. Overlap 0 lays the image brick's windows beside each other.",
        "",
        "| canvas | overlap | " + " | ".join(f"bricks of {side}" for side in report["bricks"]) + " |",
        "| --- | ---: |" + " ---: |" * len(report["bricks"]),
    ]
    for row in report["canvases"]:
        lines.append(f"| {row['size'][0]} x {row['size'][1]} | {row['overlap']} | {in_cells(row['seams'])} |")
    lines.append(f"| 32 x 32, as trained | | {in_cells(report['plain seams'])} | |")
    lines.append(f"| 32 x 32, drawn digits, without bricks | | {in_cells(report['drawn seams'])} | |")
    lines += ["", "## Where", "", *(f"- {name}: {value}" for name, value in report["environment"].items()), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lego", metavar="FOLDER", help="one made by training [default: the shipped]")
    parser.add_argument("--samples", type=int, default=128, metavar="COUNT", help="digits a share [default: 128]")
    parser.add_argument("--canvases", type=int, default=40, metavar="COUNT", help="pictures a canvas [default: 40]")
    parser.add_argument("--steps", type=int, default=10, metavar="COUNT", help="denoising steps [default: 10]")
    parser.add_argument("--pairs", type=int, default=5, metavar="COUNT", help="timed pairs [default: 5]")
    parser.add_argument("--out", default=str(ROOT), metavar="FOLDER", help="[default: this repository]")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    pipe = outpace.load_pocket(Path(asked.model) if Path(asked.model).is_dir() else asked.model)
    sides, steps = list(pipe.transformer.config["brick_sizes"]), asked.steps
    real = digit_features(list(held_out_digits(2 * asked.samples)))
    report: dict[str, Any] = {
        "command": "python benchmarks/lego.py",
        "bricks": sides,
        "samples": asked.samples,
        "count": asked.canvases,
        "steps": steps,
        "floor": frechet(real[: asked.samples], real[asked.samples :]),
        "calls": measure_calls(pipe, steps),
    }
    methods = {
        "image brick left out of the last 40 %": skip_brick(pipe, 0.4, steps=steps),
        "image brick left out of the last 30 %": skip_brick(pipe, 0.3, steps=steps),
        "4-pixel brick left out of the first 40 %": skip_brick(pipe, 0.4, steps=steps, brick=0),
        "`GatedTaylor()`": outpace.GatedTaylor(),
        "`GatedTaylor(threshold=0)`": outpace.GatedTaylor(threshold=0.0),
    }
    make(pipe, 4, 2)  # the first call pays for allocations
    report["speed"] = {name: measure_speed(pipe, method, steps, asked.pairs) for name, method in methods.items()}
    print(report["speed"], flush=True)
    report["canvases"] = [
        measure_canvas(pipe, size, overlap, asked.canvases, steps) for size in CANVASES for overlap in OVERLAPS
    ]
    print(report["canvases"], flush=True)
    report["quality"] = []
    for share in SHARES:
        report["quality"].append(measure_quality(pipe, share, asked.samples, steps, real[: asked.samples]))
        print(report["quality"][-1], flush=True)
    own = make(pipe, asked.canvases, steps, FIRST_SEED + 2000)
    inner = [side for side in sides if side < own.shape[1]]
    report |= {"plain seams": seams(own, inner), "drawn seams": seams(held_out_digits(512), inner)}
    report["environment"] = environment()
    folder = Path(asked.out)
    for place in (folder / "benchmarks" / "results", folder / "docs"):
        make_folder(place)
    write_json(folder / "benchmarks" / "results" / "lego.json", report)
    write_text(folder / "docs" / "results_lego.md", markdown(report))


if __name__ == "__main__":
    main()
