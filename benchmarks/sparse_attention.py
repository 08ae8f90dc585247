"""Sparse attention beside fewer steps and scheduled forecasts on the pocket `wan-long`, at the time that each takes.

    make bench-sparse-attention   # or: python benchmarks/sparse_attention.py [--prompts COUNT] [--at-most COUNT]

Densities are calibrated first, on calibration prompts. Then every held-out prompt is made plainly and in every other
way, one after the other in one process on one thread; time is that of the process, so that others count for little.
What was made is kept way by way in benchmarks/results/sparse_attention.json, so that a run that was stopped goes on;
--at-most bounds how many prompts one run adds. Writes docs/results_sparse_attention.md.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks.by_prompt import asked, known
from outpace.accel import AdaSpa, Method, ScheduledTaylor, StaticSparsity, accelerate
from outpace.accel.attention.redirect import Attended
from outpace.accel.calibration.attention import AttentionCalibration
from outpace.accel.patterns import PATTERNS
from outpace.evaluation.atomic import write_json
from outpace.evaluation.environment import environment
from outpace.evaluation.pareto import at_quality, at_speedup
from outpace.files import write_text
from outpace.pipelines import POCKETS, load_pocket

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "sparse_attention.json"
PAGE = ROOT / "docs" / "results_sparse_attention.md"
POCKET, STEPS, PROMPTS = "wan-long", 12, 16
TOKENS = 4352
LONGER, FEW = 20, 2
"""Steps of longer runs, and on how many prompts they are made, as are ways that are far behind."""
CALIBRATION_STEPS, CALIBRATION_PROMPTS, TRIALS, FIRST_SEED = 20, 1, 2, 500
SAVES = (0.4, 0.5)
FEWER = {STEPS: (10, 6), LONGER: (18, 16, 10)}

Way = tuple[int, tuple[Method, ...]]
"""Steps, and the methods."""


def calibrate(pipe: Any, prompts: Sequence[str], call: dict[str, Any]) -> dict[str, str]:
    """The calibrated schedules by what they save, and the share of the steps that is dense before them."""
    calibration = AttentionCalibration(trials=TRIALS, call={**call, "num_inference_steps": CALIBRATION_STEPS})
    begin = time.process_time()
    bench = calibration.bench(pipe, prompts)
    found: dict[str, Any] = {"prompts": list(prompts), "methods": {}}
    for saves in SAVES:
        method = bench.saving(saves)
        found["methods"][f"{saves:g}"] = method.to_dict() | {"psnr": bench.psnr(method)}
        print(f"saves {saves:g}: dense {method.searches}, {bench.psnr(method):.2f} dB", file=sys.stderr, flush=True)
    alone = [
        {"first": one[0], "last": one[1], "psnr": psnr} for one, psnr in zip(bench.table.bins, bench.alone, strict=True)
    ]
    found |= {"alone": alone, "levels": bench.table.levels}
    found |= {"runs": bench.runs, "seconds": time.process_time() - begin}
    return found


def ways(steps: int, calibration: dict[str, Any]) -> dict[str, tuple[Way, int]]:
    """Every way to make a clip beside so many plain steps, with the number of prompts that it is tried on."""
    saving = {
        saves: Method.from_dict({key: value for key, value in data.items() if key != "psnr"})
        for saves, data in calibration["methods"].items()
    }
    blocks: dict[str, Any] = {"block": (128, 64), "slack": 0.0, "min_gain": 0.0}
    sparse, later = (AdaSpa(recall=0.99, searches=(search,), **blocks) for search in (0.1, 0.2))
    scheduled = {speedup: ScheduledTaylor(speedup=speedup) for speedup in (1.5, 2.0)}
    # In the order of what they tell, for a run that is stopped.
    main: dict[str, Way] = {
        "plain": (steps, ()),
        "AdaSpa, recall 0.99": (steps, (sparse,)),
        "scheduled 1.5": (steps, (scheduled[1.5],)),
        "scheduled 1.5 with AdaSpa, recall 0.99": (steps, (scheduled[1.5], sparse)),
        **{f"{fewer} steps": (fewer, ()) for fewer in FEWER[steps]},
        "scheduled 2": (steps, (scheduled[2.0],)),
        "AdaSpa, recall 0.99, searched at 0.2": (steps, (later,)),
        "scheduled 1.5 with AdaSpa, recall 0.99, searched at 0.2": (steps, (scheduled[1.5], later)),
    }
    if steps != STEPS:
        return {name: (way, FEW) for name, way in main.items()}
    density = 0.5
    rivals: dict[str, Way] = {
        "AdaSpa, recall 0.95": (steps, (AdaSpa(recall=0.95, **blocks),)),
        "AdaSpa, calibrated, saves 0.4": (steps, (saving["0.4"],)),
        "AdaSpa, the paper's rule, sparsity 0.5": (steps, (replace(AdaSpa.paper(0.5), block=(128, 64)),)),
    }
    for name, pattern in PATTERNS.items():
        static = StaticSparsity(pattern=name, density=density, block=(128, 64), min_gain=0.0)
        rivals[f"{pattern.label}, density {density:g}"] = (steps, (static,))
    return {name: (way, PROMPTS) for name, way in main.items()} | {name: (way, FEW) for name, way in rivals.items()}


class Attending(TorchFunctionMode):
    """Adds up the process time of self-attention while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        attended = Attended(*args, **kwargs)
        begin = time.process_time()
        out = func(*args, **kwargs)
        self.seconds += (time.process_time() - begin) * (attended.query.shape[-2] == attended.key.shape[-2])
        return out


def attention_share(pipe: Any, prompt: str, call: dict[str, Any]) -> float:
    """Share of self-attention in the time of a plain step: that of a run of three steps less that of one of one."""
    found = []
    for steps in (1, 3):
        with Attending() as attending:
            _, facts = clip(pipe, prompt, FIRST_SEED, (steps, ()), call)
        found.append((attending.seconds, facts["seconds"]))
    return (found[1][0] - found[0][0]) / (found[1][1] - found[0][1])


def clip(pipe: Any, prompt: str, seed: int, way: Way, call: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """One clip, the process time that it took, and what attention did."""
    steps, methods = way
    given = {**call, "num_inference_steps": steps, "output_type": "np"}

    def make() -> np.ndarray:
        return np.asarray(pipe(prompt, generator=torch.Generator().manual_seed(seed), **given).frames[0])

    begin = time.process_time()
    if not methods:
        return make(), {"seconds": time.process_time() - begin}
    with accelerate(pipe, *methods) as run:
        begin = time.process_time()
        made = make()
        facts: dict[str, Any] = {"seconds": time.process_time() - begin}
    record = run.trace.attention
    if record is not None:
        totals = record.totals()
        facts |= {name: totals[name] for name in ("work", "density", "recall")} | {"timed": dict(record.seconds)}
    return made, facts


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one.astype(np.float64) - other) ** 2)))


def measure(
    pipe: Any,
    prompt: str,
    seed: int,
    every: dict[str, Way],
    call: dict[str, Any],
    found: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    """What is missing in `found` on one prompt, against the plain clip and its time; `keep` is called after each."""
    plain, seconds = clip(pipe, prompt, seed, every["plain"], call)
    found.setdefault("plain", seconds)
    for name, way in every.items():
        if name in found:
            continue
        made, facts = clip(pipe, prompt, seed, way, call)
        found[name] = facts | {"psnr": psnr(made, plain), "speedup": seconds["seconds"] / facts["seconds"]}
        print(f"  {name}: {found[name]['speedup']:.2f}x, {found[name]['psnr']:.2f} dB", file=sys.stderr, flush=True)
        keep()


Made = dict[str, dict[str, Any]]
"""What was measured of one number of steps, by prompt and way."""


def rows(made: Made) -> list[dict[str, Any]]:
    """Every way over its prompts: speed-ups are medians of ratios within a prompt."""
    by_way: dict[str, list[dict[str, Any]]] = {}
    for one in made.values():
        for name, facts in one.items():
            if name != "plain":
                by_way.setdefault(name, []).append(facts)
    found = []
    for name, held in by_way.items():
        values = [facts["psnr"] for facts in held]
        works = [facts["work"] for facts in held if facts.get("work") is not None]
        found.append(
            {
                "name": name,
                "prompts": len(held),
                "psnr": fmean(values),
                "spread": stdev(values) if len(values) > 1 else 0.0,
                "speedup": median(facts["speedup"] for facts in held),
                "work": fmean(works) if works else None,
            }
        )
    return sorted(found, key=lambda row: row["speedup"])


CURVES: dict[str, Callable[[str], bool]] = {
    "fewer steps": lambda name: name.endswith("steps"),
    "scheduled": lambda name: name.startswith("scheduled") and "AdaSpa" not in name,
}
"""What every way stands beside, by whether a way is of it."""


def beside(made: Made, table: list[dict[str, Any]], row: dict[str, Any], of: Callable[[str], bool]) -> list[float]:
    """By how many dB a way is ahead of a curve at its own speed-up, prompt by prompt; empty where the curve ends."""
    curve = {one["name"]: one["speedup"] for one in table if of(one["name"])}
    found = []
    for one in made.values():
        if row["name"] in one and all(name in one for name in curve):
            qualities = np.array([one[name]["psnr"] for name in curve])
            there = at_speedup(np.array(list(curve.values())), qualities, row["speedup"])
            found += [] if math.isnan(there) else [one[row["name"]]["psnr"] - there]
    return found


def ahead(differences: list[float]) -> str:
    """Differences in dB as mean, standard error and on how many prompts they are above 0."""
    if not differences:
        return ""
    error = f" ± {stdev(differences) / len(differences) ** 0.5:.1f}" if len(differences) > 1 else ""
    return f"{fmean(differences):+.1f}{error} ({sum(d > 0 for d in differences)} of {len(differences)})"


def table_of(made: Made) -> list[str]:
    """The table of one number of steps."""
    table = rows(made)
    lines = [
        "| | prompts | speed-up | PSNR, dB | attention's work | beside fewer steps, dB | beside scheduled, dB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table:
        sides = [ahead(beside(made, table, row, of)) if not of(row["name"]) else "" for of in CURVES.values()]
        cells = [
            row["name"],
            str(row["prompts"]),
            f"{row['speedup']:.2f}x",
            f"{row['psnr']:.1f} ± {row['spread']:.1f}",
            "" if row["work"] is None else f"{row['work']:.2f}",
            *sides,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def even(share: float, needed: float, saved: float) -> tuple[float, float]:
    """From where on a way is as fast as a rival of equal fidelity: (share of attention in the time, of it to be saved).

    Args:
        share: of attention in the plain time.
        needed: the rival's speed-up at the way's fidelity.
        saved: share of attention's time that the way saves.
    """
    gone = 1.0 - 1.0 / needed
    return gone / saved, gone / share


def as_close(made: Made, row: dict[str, Any]) -> dict[str, float]:
    """How fast a rival is where it comes as close to the plain clip as a way, on its prompts; only those that do."""
    found, table = {}, rows({prompt: one for prompt, one in made.items() if row["name"] in one})
    for rival, of in CURVES.items():
        curve = [one for one in table if of(one["name"])]
        if not curve:
            continue
        speedup = at_quality(*(np.array([one[key] for one in curve]) for key in ("speedup", "psnr")), row["psnr"])
        if math.isfinite(speedup) and speedup > 1.0:
            found[rival] = speedup
    return found


def break_even(made: Made, share: float, tokens: int) -> list[str]:
    """Where sparse attention alone would be even with each rival at its own fidelity."""
    lines = []
    for row in rows(made):
        if row["work"] is None or "with" in row["name"]:
            continue
        saved = (1.0 - 1.0 / row["speedup"]) / share
        for rival, needed in as_close(made, row).items() if saved > 0.0 else ():
            least, most = even(share, needed, saved)
            longer = tokens * (least / (1 - least)) / (share / (1 - share)) if least < 1 else math.inf
            lines.append(
                f"| {row['name']} | {rival} | {needed:.2f}x | {saved:.2f} | {most:.2f} | "
                f"{f'{least:.2f}, {longer:.0f} tokens' if least < 1 else 'never'} |"
            )
    return lines


def page(report: dict[str, Any]) -> str:
    """docs/results_sparse_attention.md."""
    runs = {int(steps): made for steps, made in report["runs"].items() if any(len(one) > 1 for one in made.values())}
    share, tokens = report["attention_share"], report["tokens"]
    lines = [
        "# Sparse attention beside fewer steps, at equal time",
        "",
        "Written by `python benchmarks/sparse_attention.py`; nothing here is typed in. How it works: "
        "[sparse attention](sparse_attention.md).",
        "",
        f"Pocket `{POCKET}`: {tokens} tokens, held-out prompts, one thread. Self-attention is {100 * share:.0f} % of "
        "the time of a plain step. PSNR against the plain clip of as many steps, mean and standard deviation; the "
        "speed-up is the median of ratios of process time within a prompt. Work is the share of attention that is "
        "computed, searches counted. The last two columns say by how much a way is ahead of fewer steps and of "
        "scheduled forecasts that take as long, on lines between their points that are straight over the logarithm "
        "of the speed-up: mean of the differences within a prompt, its standard error, and on how many prompts it is "
        "ahead. They are empty where the rival was not made as fast, or as slow.",
    ]
    for steps, made in runs.items():
        lines += ["", f"## {steps} steps, {len(made)} prompts", "", *table_of(made)]
    lines += [
        "",
        "## Where it would be even",
        "",
        "Sparse attention alone beside a rival that is as close to the plain clip: how fast that rival is; what share "
        "of attention's time the way saves, and would have to save here to be as fast; and from which share of "
        "attention in the plain time on what it saves is enough, with the number of tokens at which this model has "
        "that share (attention grows with their square, the rest with their number).",
        "",
    ]
    for steps, made in runs.items():
        lines += [
            f"### {steps} steps",
            "",
            "| | beside | which is as close at | saves | has to save | is even from |",
            "| --- | --- | ---: | ---: | ---: | --- |",
            *break_even(made, share, tokens),
            "",
        ]
    lines += ["## Calibration", ""]
    calibration = report["calibration"]
    lines += [
        f"{len(calibration['prompts'])} calibration prompts of {CALIBRATION_STEPS} steps, {calibration['runs']} real "
        f"runs of them besides the plain and the measured one, {calibration['seconds']:.0f} s of processor time. Where "
        "one range of noise levels alone keeps a third of its blocks, every head alike, and everything else is dense:",
        "",
        "| steps | noise levels | PSNR, dB |",
        "| --- | --- | ---: |",
        *(f"| {one['first'] + 1} to {one['last'] + 1} | {calibration['levels'][one['first']]:.2f} to "
          f"{calibration['levels'][one['last']]:.2f} | {one['psnr']:.1f} |" for one in calibration["alone"]),
        "",
        *(f"- saves {saves}: `{data['schedule']}`, dense {data['searches'][0] if 'searches' in data else 0.1:g}"
          for saves, data in calibration["methods"].items()),
        "",
        "## How it was measured",
        "",
        *(f"- {name}: {value}" for name, value in report["environment"].items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    options = asked(__doc__.splitlines()[0], prompts=PROMPTS, result=RESULT, page=PAGE)
    torch.set_num_threads(1)
    report = known(options.result)
    pocket, pipe = POCKETS[POCKET], load_pocket(POCKET)
    pipe.set_progress_bar_config(disable=True)
    asked_for = pocket.prompts(options.prompts, "held_out")

    def keep() -> None:
        report.update(command="python benchmarks/sparse_attention.py", environment=environment())
        write_json(options.result, report)

    if "calibration" not in report:
        report["calibration"] = calibrate(pipe, pocket.prompts(CALIBRATION_PROMPTS, "calibration"), pocket.call)
        keep()
    if "attention_share" not in report:
        report |= {"attention_share": attention_share(pipe, asked_for[0], pocket.call), "tokens": TOKENS, "runs": {}}
        keep()
    places, added = list(range(len(asked_for))), 0
    for steps, place in [(STEPS, at) for at in places] + [(LONGER, at) for at in places[:FEW]]:
        every = {name: way for name, (way, most) in ways(steps, report["calibration"]).items() if place < most}
        prompt, made = asked_for[place], report["runs"].setdefault(str(steps), {})
        if added >= options.at_most or every.keys() <= made.get(prompt, {}).keys():
            continue
        print(f"{steps} steps: {prompt}", file=sys.stderr, flush=True)
        measure(pipe, prompt, FIRST_SEED + place, every, pocket.call, made.setdefault(prompt, {}), keep)
        added += 1
    write_text(options.page, page(report))


if __name__ == "__main__":
    main()
