"""Sparse attention beside fewer steps and scheduled forecasts on the pocket `wan-long`, at the time that each takes.

    make bench-sparse-attention   # or: python benchmarks/sparse_attention.py [--prompts COUNT] [--at-most COUNT]

Densities are calibrated first, on calibration prompts. Then every held-out prompt is made plainly and in every other
way, one after the other in one process on one thread; time is that of the process, so that others count for little.
At last every prompt's converged clip is made, and all are held against it, too. What was measured is kept way by way in
benchmarks/results/sparse_attention.json, and the clips in out/sparse_attention, so that a run that was stopped goes on;
--at-most bounds how many prompts one run adds. Writes docs/results_sparse_attention.md.
"""

from __future__ import annotations

import json
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
from outpace.accel import AdaSpa, Method, ScheduledTaylor, Solver, StaticSparsity, accelerate
from outpace.accel.attention.redirect import Attended
from outpace.accel.attention.watch import ASKED
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
CLIPS = ROOT / "out" / "sparse_attention"
POCKET, STEPS, PROMPTS = "wan-long", 12, 16
TOKENS, WIDTH = 4352, 32
"""Of its attention, and of a head."""
ALONE = "AdaSpa, recall 0.99"
KERNELS = ROOT / "benchmarks" / "results" / "attention_cpu.json"
FEW = 2
"""Prompts on which ways are tried that are far behind."""
CONVERGED = 48
"""Steps of a second-order solver that stand for the converged clip."""
CALIBRATION_PROMPTS, FIRST_SEED, SAVES = 2, 500, 0.4

Way = tuple[int, tuple[Method, ...]]
"""Steps, and the methods."""


def calibrate(pipe: Any, prompts: Sequence[str], call: dict[str, Any]) -> dict[str, Any]:
    """The calibrated method, and everything that was tried to find it."""
    calibration = AttentionCalibration(call={**call, "num_inference_steps": STEPS})
    begin = time.process_time()
    bench = calibration.bench(pipe, prompts)
    method = bench.saving(SAVES)
    tried = [one.to_dict() | {"psnr": psnr, "saved": saved} for one, (psnr, saved) in bench.tried.items()]
    alone = [
        {"first": one[0], "last": one[1], "psnr": psnr} for one, psnr in zip(bench.table.bins, bench.alone, strict=True)
    ]
    found = {"prompts": list(prompts), "method": method.to_dict(), "tried": tried[len(alone) :], "alone": alone}
    return found | {"levels": bench.table.levels, "runs": bench.runs, "seconds": time.process_time() - begin}


def ways(calibration: dict[str, Any]) -> dict[str, tuple[Way, int]]:
    """Every way to make a clip, with the number of prompts that it is tried on."""
    blocks: dict[str, Any] = {"block": (128, 64), "slack": 0.0, "min_gain": 0.0}
    calibrated = Method.from_dict(calibration["method"])
    later = {recall: AdaSpa(recall=recall, searches=(0.2,), **blocks) for recall in (0.99, 0.995)}
    scheduled = {f"{STEPS / computed:.3g}": ScheduledTaylor(speedup=STEPS / computed) for computed in (9, 8, 7, 6, 5)}
    # In the order of what they tell, for a run that is stopped.
    main: dict[str, tuple[Method, ...]] = {
        "plain": (),
        "scheduled 1.33 with AdaSpa, calibrated": (scheduled["1.33"], calibrated),
        "scheduled 1.71 with AdaSpa, calibrated": (scheduled["1.71"], calibrated),
        "scheduled 1.33 with AdaSpa, recall 0.99": (scheduled["1.33"], later[0.99]),
        "scheduled 1.71 with AdaSpa, recall 0.99": (scheduled["1.71"], later[0.99]),
        "scheduled 1.33 with AdaSpa, recall 0.995": (scheduled["1.33"], later[0.995]),
        **{f"scheduled {speedup}": (scheduled[speedup],) for speedup in ("1.5", "2", "2.4")},
    }
    every: dict[str, tuple[Way, int]] = {name: ((STEPS, methods), PROMPTS) for name, methods in main.items()}
    every |= {f"{fewer} steps": ((fewer, ()), PROMPTS) for fewer in (8, 6, 5, 10)}
    every[ALONE] = (STEPS, (AdaSpa(recall=0.99, searches=(0.1,), **blocks),)), PROMPTS
    behind: dict[str, Method] = {
        "AdaSpa, recall 0.99, searched at 0.2": later[0.99],
        "AdaSpa, calibrated": calibrated,
        "AdaSpa, the paper's rule, sparsity 0.5": replace(AdaSpa.paper(0.5), block=(128, 64)),
    }
    density = 0.5
    for name, pattern in PATTERNS.items():
        static = StaticSparsity(pattern=name, density=density, block=(128, 64), min_gain=0.0)
        behind[f"{pattern.label}, density {density:g}"] = static
    return every | {name: ((STEPS, (method,)), FEW) for name, method in behind.items()}


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


class Clips:
    """What was made, by prompt and way, on disk: so that it can be held against what is made later."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, seed: int, name: str) -> Path:
        return self.folder / f"{seed} {name}.npy"

    def keep(self, seed: int, name: str, made: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self._file(seed, name), made.astype(np.float32))

    def of(self, seed: int, name: str) -> np.ndarray | None:
        """A clip, or None where it was not kept."""
        file = self._file(seed, name)
        return np.load(file) if file.exists() else None


def measure(
    pipe: Any,
    prompt: str,
    seed: int,
    every: dict[str, Way],
    call: dict[str, Any],
    found: dict[str, Any],
    clips: Clips,
    keep: Callable[[], None],
) -> None:
    """What is missing in `found` on one prompt, against the plain clip and its time; `keep` is called after each."""
    plain, seconds = clip(pipe, prompt, seed, every["plain"], call)
    clips.keep(seed, "plain", plain)
    found.setdefault("plain", seconds)
    for name, way in every.items():
        if name in found:
            continue
        made, facts = clip(pipe, prompt, seed, way, call)
        clips.keep(seed, name, made)
        found[name] = facts | {"psnr": psnr(made, plain), "speedup": seconds["seconds"] / facts["seconds"]}
        print(f"  {name}: {found[name]['speedup']:.2f}x, {found[name]['psnr']:.2f} dB", file=sys.stderr, flush=True)
        keep()


def converge(pipe: Any, prompt: str, seed: int, call: dict[str, Any], found: dict[str, Any], clips: Clips) -> bool:
    """Hold what was made of one prompt against its converged clip, as far as it was kept; False where all of it was."""
    missing = [name for name, facts in found.items() if "converged" not in facts]
    kept = {name: made for name in missing if (made := clips.of(seed, name)) is not None}
    if not kept:
        return False
    converged = clips.of(seed, "converged")
    if converged is None:
        converged, _ = clip(pipe, prompt, seed, (CONVERGED, (Solver(),)), call)
        clips.keep(seed, "converged", converged)
    for name, made in kept.items():
        found[name]["converged"] = psnr(made, converged)
    return True


Made = dict[str, dict[str, Any]]
"""What was measured, by prompt and way."""


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
        solved = [facts["converged"] for facts in held if "converged" in facts]
        found.append(
            {
                "name": name,
                "prompts": len(held),
                "psnr": fmean(values),
                "spread": stdev(values) if len(values) > 1 else 0.0,
                "speedup": median(facts["speedup"] for facts in held),
                "work": fmean(works) if works else None,
                "converged": fmean(solved) if solved else None,
            }
        )
    return sorted(found, key=lambda row: row["speedup"])


CURVES: dict[str, Callable[[str], bool]] = {
    "fewer steps": lambda name: name.endswith("steps"),
    "scheduled": lambda name: name.startswith("scheduled") and "AdaSpa" not in name,
}
"""What every way stands beside, by whether a way is of it."""


def beside(
    made: Made, table: list[dict[str, Any]], row: dict[str, Any], of: Callable[[str], bool], towards: str = "psnr"
) -> list[float]:
    """By how many dB a way is ahead of a curve at its own speed-up, prompt by prompt; empty where the curve ends.

    Args:
        towards: "psnr" for the plain clip, "converged".
    """
    curve = {one["name"]: one["speedup"] for one in table if of(one["name"])}
    found = []
    for one in made.values():
        if all(towards in one.get(name, {}) for name in (row["name"], *curve)):
            qualities = np.array([one[name][towards] for name in curve])
            there = at_speedup(np.array(list(curve.values())), qualities, row["speedup"])
            found += [] if math.isnan(there) else [one[row["name"]][towards] - there]
    return found


def ahead(differences: list[float]) -> str:
    """Differences in dB as mean, standard error and on how many prompts they are above 0."""
    if not differences:
        return ""
    error = f" ± {stdev(differences) / len(differences) ** 0.5:.1f}" if len(differences) > 1 else ""
    return f"{fmean(differences):+.1f}{error} ({sum(d > 0 for d in differences)} of {len(differences)})"


def table_of(made: Made, towards: str = "psnr") -> list[str]:
    """Every way towards the plain clip, or the converged one."""
    table = rows(made)
    lines = [
        "| | prompts | speed-up | PSNR, dB | attention's work | beside fewer steps, dB | beside scheduled, dB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table:
        values = [facts[towards] for one in made.values() if towards in (facts := one.get(row["name"], {}))]
        if not values:
            continue
        sides = [ahead(beside(made, table, row, of, towards)) if not of(row["name"]) else "" for of in CURVES.values()]
        cells = [
            row["name"],
            str(len(values)),
            f"{row['speedup']:.2f}x",
            f"{fmean(values):.1f} ± {stdev(values) if len(values) > 1 else 0.0:.1f}",
            "" if row["work"] is None else f"{row['work']:.2f}",
            *sides,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def together(made: Made) -> list[str]:
    """What docs/sparse_attention.md shows: sparse attention alone and on forecasts, towards either clip."""
    table = rows(made)
    columns = [(rival, towards) for towards in ("psnr", "converged") for rival in CURVES]
    names = [f"beside {rival}" + (", converged" if towards != "psnr" else "") for rival, towards in columns]
    lines = [f"| | speed-up | {' | '.join(names)} |", f"| --- | ---: |{' ---: |' * len(names)}"]
    for row in table:
        if " with " in row["name"] or row["name"] == ALONE:
            cells = [ahead(beside(made, table, row, CURVES[rival], towards)) for rival, towards in columns]
            lines.append(f"| {row['name']} | {row['speedup']:.2f}x | {' | '.join(cells)} |")
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


def overhead(made: Made, share: float, tokens: int) -> list[str]:
    """What searching and watching take beside what is saved, in dense calls of the whole attention."""
    row = next((row for row in rows(made) if row["name"] == ALONE), None)
    if row is None or row["speedup"] <= 1.0:
        return []
    cases = json.loads(KERNELS.read_text(encoding="utf-8"))["cases"]
    search = next(c["search_of_dense"] for c in cases if (c["tokens"], c["width"], c["threads"]) == (tokens, WIDTH, 1))
    sparse = STEPS - max(1, round(0.1 * STEPS))
    watch = ASKED / tokens * sparse
    saved = (1.0 - 1.0 / row["speedup"]) / share * STEPS
    return [
        f"A search takes {search:.2f} of a dense call beyond the one it stands for "
        "([kernels](../benchmarks/results/attention_cpu.md)). Watching the recall, which is switched off here, attends "
        f"to {ASKED} of {tokens} queries densely at {sparse} sparse steps: {watch:.2f} of a dense call. {ALONE} saves "
        f"{saved:.1f} of the {STEPS} dense calls of a run, so that both are {(search + watch) / saved:.0%} of what is "
        "saved, and less in longer runs and videos.",
        "",
    ]


def told(method: dict[str, Any]) -> str:
    """A method of a calibration in short."""
    what = f"`{method['schedule']}`" if method.get("schedule") else f"recall {method['recall']:.4g}"
    return f"{what}, dense {method['searches'][0] if 'searches' in method else 0.1:g}"


def page(report: dict[str, Any]) -> str:
    """docs/results_sparse_attention.md."""
    made: Made = {prompt: one for prompt, one in report["prompts"].items() if "plain" in one and len(one) > 1}
    share, tokens, calibration = report["attention_share"], report["tokens"], report["calibration"]
    plain = [one["plain"]["converged"] for one in made.values() if "converged" in one["plain"]]
    lines = [
        "# Sparse attention beside fewer steps, at equal time",
        "",
        "Written by `python benchmarks/sparse_attention.py`; nothing here is typed in. How it works: "
        "[sparse attention](sparse_attention.md).",
        "",
        f"Pocket `{POCKET}`: {tokens} tokens, {STEPS} steps, {len(made)} held-out prompts, one thread. Self-attention "
        f"is {100 * share:.0f} % of the time of a plain step. The speed-up is the median of ratios of process time "
        "within a prompt. Work is the share of attention that is computed, searches counted. The last two columns say "
        "by how much a way is ahead of fewer steps and of scheduled forecasts that take as long, on lines between "
        "their points that are straight over the logarithm of the speed-up: mean of the differences within a prompt, "
        "its standard error, and on how many prompts it is ahead. They are empty where the rival was not made as "
        "fast, or as slow.",
        "",
        "## Towards the plain clip",
        "",
        "PSNR against the plain clip of as many steps, mean and standard deviation.",
        "",
        *table_of(made),
        "",
    ]
    if plain:
        lines += [
            "## Towards the converged clip",
            "",
            f"PSNR against {CONVERGED} steps of a second-order solver from the same noise. The plain clip of {STEPS} "
            f"steps is {fmean(plain):.1f} dB from it ({len(plain)} prompts).",
            "",
            *table_of(made, "converged"),
            "",
        ]
    lines += [
        "## Where it would be even",
        "",
        "Sparse attention alone beside a rival that is as close to the plain clip: how fast that rival is; what share "
        "of attention's time the way saves, and would have to save here to be as fast; and from which share of "
        "attention in the plain time on what it saves is enough, with the number of tokens at which this model has "
        "that share (attention grows with their square, the rest with their number).",
        "",
        "| | beside | which is as close at | saves | has to save | is even from |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        *break_even(made, share, tokens),
        "",
        "## What searching takes",
        "",
        *overhead(made, share, tokens),
        "## Calibration",
        "",
        f"{len(calibration['prompts'])} calibration prompts, {calibration['runs']} real runs of them besides the plain "
        f"and the measured one, {calibration['seconds']:.0f} s of processor time. Where one range of noise levels "
        "alone keeps a third of its blocks, every head alike, and everything else is dense:",
        "",
        "| steps | noise levels | PSNR, dB |",
        "| --- | --- | ---: |",
        *(f"| {one['first'] + 1} to {one['last'] + 1} | {calibration['levels'][one['first']]:.2f} to "
          f"{calibration['levels'][one['last']]:.2f} | {one['psnr']:.1f} |" for one in calibration["alone"]),
        "",
        f"What was tried to leave out {SAVES:.0%} of all attention: densities that were planned, and one recall for "
        "everything until it leaves out as much.",
        "",
        "| | left out | PSNR, dB |",
        "| --- | ---: | ---: |",
        *(f"| {told(one)} | {one['saved']:.2f} | {one['psnr']:.1f} |" for one in calibration["tried"]),
        "",
        f"Chosen, and called calibrated above: {told(calibration['method'])}.",
        "",
        "## How it was measured",
        "",
        *(f"- {name}: {value}" for name, value in report["environment"].items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    options = asked(__doc__.splitlines()[0], prompts=PROMPTS, result=RESULT, page=PAGE)
    torch.set_num_threads(1)
    report, clips = known(options.result), Clips(CLIPS)
    pocket, pipe = POCKETS[POCKET], load_pocket(POCKET)
    pipe.set_progress_bar_config(disable=True)
    asked_for = list(enumerate(pocket.prompts(options.prompts, "held_out")))

    def keep() -> None:
        report.update(command="python benchmarks/sparse_attention.py", environment=environment())
        write_json(options.result, report)

    if "calibration" not in report:
        report["calibration"] = calibrate(pipe, pocket.prompts(CALIBRATION_PROMPTS, "calibration"), pocket.call)
        keep()
    if "attention_share" not in report:
        share = attention_share(pipe, asked_for[0][1], pocket.call)
        report |= {"attention_share": share, "tokens": TOKENS}
        keep()
    every, added = ways(report["calibration"]), 0
    for least in (PROMPTS, FEW):  # what is far behind comes last
        for place, prompt in asked_for:
            wanted = {name: way for name, (way, most) in every.items() if place < most >= least}
            made = report["prompts"].setdefault(prompt, {})
            if added >= options.at_most or wanted.keys() <= made.keys():
                continue
            print(prompt, file=sys.stderr, flush=True)
            measure(pipe, prompt, FIRST_SEED + place, wanted, pocket.call, made, clips, keep)
            added += 1
        for place, prompt in asked_for if added < options.at_most else ():
            if converge(pipe, prompt, FIRST_SEED + place, pocket.call, report["prompts"].get(prompt, {}), clips):
                keep()
    write_text(options.page, page(report))


if __name__ == "__main__":
    main()
