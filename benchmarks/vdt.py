"""What the pocket `vdt` makes of clips whose answer is known, beside guesses that need no model; and how fast.

    make bench-vdt     # or: python benchmarks/vdt.py [--model FOLDER] [--clips COUNT] [--steps COUNT] [--out FOLDER]

Clips of moving digits that no training step has drawn; one set of weights, one sample a clip. The error is the mean
squared error of the pixels that were to be made, in 0..1. The guesses: the nearest known frame again; the two known
frames around blended by their distance (beyond the last, that one again); the mean colour of what is known of a frame.
Time is that of the process, plain and accelerated in turn. Writes benchmarks/results/vdt.json and docs/results_vdt.md.
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
from outpace.evaluation.timing import span
from outpace.files import write_text
from outpace.pipelines.pocket.moving_digits import check_moving_digits, known_clips
from outpace.pipelines.vdt import TASKS

ROOT = Path(__file__).resolve().parent.parent
FIRST_SEED = 60_000
METHODS = {"GatedTaylor()": outpace.GatedTaylor(), "GatedTaylor(threshold=0)": outpace.GatedTaylor(threshold=0.0)}
ANSWERED = [name for name, task in TASKS.items() if task.knows]
"""Tasks with something known, whose clip is the answer."""


def make(pipe: Any, clips: np.ndarray, task: str, steps: int, first: int = FIRST_SEED) -> tuple[np.ndarray, np.ndarray]:
    """Clips that `task` makes of `clips`, and their masks; sixteen a call."""
    frames, masks = [], []
    for start in range(0, len(clips), 16):
        part = clips[start : start + 16]
        generators = [torch.Generator().manual_seed(first + start + index) for index in range(len(part))]
        given = {"frames": part} if TASKS[task].knows else {}
        made = pipe(task=[task] * len(part), generator=generators, num_inference_steps=steps, **given)
        frames.append(made.frames)
        masks.append(made.masks)
    return np.concatenate(frames), np.concatenate(masks)


def make_into(made: list[np.ndarray], pipe: Any, clips: np.ndarray, task: str, steps: int) -> None:
    made.append(make(pipe, clips, task, steps)[0])


def nearest_frame(clip: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Each pixel from the nearest frame in which it is known, the earlier of two; of a pixel never known, black."""
    guess = np.where(mask[..., None] == 0, clip, 0.0)
    for t, y, x in zip(*np.nonzero(mask), strict=True):
        known = np.nonzero(mask[:, y, x] == 0)[0]
        if len(known):
            guess[t, y, x] = clip[known[np.abs(known - t).argmin()], y, x]
    return guess


def blend(clip: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Each pixel on the line between the frames around in which it is known; beyond the last known one, as there."""
    guess = np.where(mask[..., None] == 0, clip, 0.0)
    times = np.arange(len(clip))
    for y, x in zip(*np.nonzero(mask.any(0)), strict=True):
        known = np.nonzero(mask[:, y, x] == 0)[0]
        for channel in range(clip.shape[-1]) if len(known) else ():
            line = np.interp(times, known, clip[known, y, x, channel])
            guess[:, y, x, channel] = np.where(mask[:, y, x] == 1, line, clip[:, y, x, channel])
    return guess


def frame_mean(clip: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Every pixel the mean of what is known in its frame, or in the clip where nothing of the frame is."""
    guess = clip.copy()
    for t in range(len(clip)):
        known = clip[t][mask[t] == 0]
        guess[t][mask[t] == 1] = known.mean(0) if len(known) else clip[mask == 0].mean(0)
    return guess


GUESSES = {"nearest frame": nearest_frame, "linear blend": blend, "frame mean": frame_mean}


def errors(made: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Mean squared error of what was to be made, one a clip."""
    open_ = masks[..., None]
    squares = ((made - truth) ** 2 * open_).sum((1, 2, 3, 4))
    return squares / (open_.sum((1, 2, 3, 4)) * made.shape[-1])


def measure_task(pipe: Any, task: str, clips: np.ndarray, steps: int) -> dict[str, Any]:
    """Errors of one task, of the model and of every guess."""
    made, masks = make(pipe, clips, task, steps)
    known = np.broadcast_to(masks[..., None] == 0, clips.shape)
    row: dict[str, Any] = {"task": task, "kept bit for bit": bool(np.array_equal(made[known], clips[known]))}
    mine = errors(made, clips, masks)
    row["model"] = float(mine.mean())
    for name, guess in GUESSES.items():
        guessed = errors(np.stack([guess(c, m) for c, m in zip(clips, masks, strict=True)]), clips, masks)
        row[name] = float(guessed.mean())
        row[f"clips nearer than {name}"] = float((mine < guessed).mean())
    hits = check_moving_digits(list(made), [task] * len(made))
    row |= {key: float(np.mean([hit[key] for hit in hits])) for key in hits[0]}
    return row


def measure_speed(pipe: Any, method: Any, steps: int, rounds: int) -> dict[str, Any]:
    """Plain and accelerated in turn on tasks of every kind: time, work and how near the results are."""
    ratios, near, work, forecast = [], [], [], 0
    for turn in range(rounds):
        clips, task = known_clips([FIRST_SEED + 500 + turn]), list(TASKS)[turn % len(TASKS)]
        made: list[np.ndarray] = []
        call = partial(make_into, made, pipe, clips, task, steps)
        plain = span(call)
        with outpace.accelerate(pipe, method) as run:
            faster = span(call)
        totals = run.trace.totals()
        forecast += totals["forecast"]
        work.append(totals["predicted_speedup"] or 1.0)
        ratios.append(plain.cpu / faster.cpu)
        near.append(float(((made[0] - made[1]) ** 2).mean()))
    return {
        "speed-up of process time": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "predicted speed-up": statistics.median(work),
        "forecast": forecast,
        "identical": max(near) == 0.0,
        "psnr_decibel": None if max(near) == 0.0 else float(-10 * np.log10(np.mean(near))),
        "pairs": rounds,
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as docs/results_vdt.md."""
    lines = [
        "# One VDT, every task: measured",
        "",
        f"Written by `{report['command']}`; nothing here is typed in. How it works: [vdt.md](vdt.md).",
        "",
        f"{report['clips']} clips of moving digits that no training step has drawn, {report['steps']} steps, one "
        "sample a clip. Mean squared error of the pixels that were to be made (0..1), the least of a row in "
        "bold; in brackets the share of clips on which the model is nearer to the truth than the guess.",
        "",
        "| task | model | " + " | ".join(GUESSES) + " | known kept bit for bit | frames with a digit |",
        "| --- | ---: |" + " ---: |" * len(GUESSES) + " --- | ---: |",
    ]
    for row in report["tasks"]:
        least = min(row[name] for name in ("model", *GUESSES))
        cells = [f"{row[name]:.4f}" if row[name] > least else f"**{row[name]:.4f}**" for name in ("model", *GUESSES)]
        cells[1:] = [
            f"{cell} ({row[f'clips nearer than {name}']:.0%})" for cell, name in zip(cells[1:], GUESSES, strict=True)
        ]
        kept = "yes" if row["kept bit for bit"] else "no"
        lines.append(f"| {row['task']} | {' | '.join(cells)} | {kept} | {row['digit']:.0%} |")
    new = report["unconditional"]
    lines += [
        "",
        f"Clips out of nothing: a digit of the font is read in {new['digit']:.0%} of their frames, and the clip's most "
        f"seen digit in {new['same']:.0%}.",
        "",
        "A task with several right answers (`animate`: which way does it move?) need not come near the one that "
        "happened; its error is shown, not hidden.",
        "",
        "## Faster",
        "",
        "Plain and accelerated in turn, one clip a call, all tasks. PSNR is that of accelerated against plain.",
        "",
        "| method | speed-up, process time | least to most | predicted | PSNR |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in report["speed"].items():
        near = "identical" if row["identical"] else f"{row['psnr_decibel']:.1f} dB"
        span_ = f"{row['least']:.2f} to {row['most']:.2f}"
        speed = f"{row['speed-up of process time']:.2f}x"
        lines.append(f"| `{name}` | {speed} | {span_} | {row['predicted speed-up']:.2f}x | {near} |")
    lines += ["", "## Where", "", *(f"- {name}: {value}" for name, value in report["environment"].items()), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vdt", metavar="FOLDER", help="one made by training [default: the shipped]")
    parser.add_argument("--clips", type=int, default=64, metavar="COUNT", help="held-out clips [default: 64]")
    parser.add_argument("--steps", type=int, default=50, metavar="COUNT", help="denoising steps [default: 50]")
    parser.add_argument("--pairs", type=int, default=14, metavar="COUNT", help="timed pairs [default: 14]")
    parser.add_argument("--out", default=str(ROOT), metavar="FOLDER", help="[default: this repository]")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    pipe = outpace.load_pocket(Path(asked.model) if Path(asked.model).is_dir() else asked.model)
    clips = known_clips(range(FIRST_SEED, FIRST_SEED + asked.clips))
    report: dict[str, Any] = {"command": "python benchmarks/vdt.py", "clips": len(clips), "steps": asked.steps}
    report["tasks"] = []
    for task in ANSWERED:
        report["tasks"].append(measure_task(pipe, task, clips, asked.steps))
        print(report["tasks"][-1], flush=True)
    made, _ = make(pipe, np.zeros_like(clips), "unconditional", asked.steps)
    hits = check_moving_digits(list(made), ["unconditional"] * len(made))
    report["unconditional"] = {key: float(np.mean([hit[key] for hit in hits])) for key in hits[0]}
    report["speed"] = {name: measure_speed(pipe, method, asked.steps, asked.pairs) for name, method in METHODS.items()}
    print(report["unconditional"], report["speed"], flush=True)
    report["environment"] = environment()
    folder = Path(asked.out)
    for place in (folder / "benchmarks" / "results", folder / "docs"):
        make_folder(place)
    write_json(folder / "benchmarks" / "results" / "vdt.json", report)
    write_text(folder / "docs" / "results_vdt.md", markdown(report))


if __name__ == "__main__":
    main()
