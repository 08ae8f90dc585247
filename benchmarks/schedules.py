"""What a schedule calibrated at one number of steps is worth at others, and whether measured errors say who is hard.

    python benchmarks/schedules.py [mapped|hardness|power|early|first|online] [PIPELINE ...] [--prompts COUNT]
        [--steps STEPS ...] [--speedups SPEEDUP ...]

power: laid online, beside every power schedule of equal work (step N (k / K)^s with an order and a degree of the
replay that stay the same) on held-out prompts. online: only what is laid online anew, in the rows that power has.
early: steps laid evenly and denser early, with and without guidance, on calibration prompts. first: the second
computed step after one, two or more steps and the others evenly behind it, on calibration prompts. mapped: calibrated
at 50 steps on calibration prompts, used at 50, 40 and 28 on held-out ones, beside a schedule calibrated at that
number of steps and one laid online. hardness: at equal work, a step more for the third of the samples whose forecasts
proved worst in the first half of their run and a step less for the third where they proved best; beside the same
number of steps for all, the other way round, drawn at random, and by the pictures themselves, which nobody has
beforehand. Writes benchmarks/results/schedules.json and schedules.md after every row, in the place of the row of the
same pipeline, steps and speed-up.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from outpace.accel import Method, ScheduledTaylor, accelerate
from outpace.accel.calibration.runs import caller, made, psnr
from outpace.accel.calibration.schedule import Bench as Calibration
from outpace.accel.forecast.errors import Measured
from outpace.accel.levels import noise_levels
from outpace.accel.methods.scheduled_taylor import LAST_SKIPS, SchedulePolicy
from outpace.evaluation.environment import environment
from outpace.pipelines import POCKETS, load_pocket

RESULTS = Path(__file__).resolve().parent / "results" / "schedules.json"
PIPELINES = ("dit", "flux", "wan")
CALIBRATED, HELD_OUT, HARD = 8, 64, 16
"""Prompts: to calibrate with, and fresh ones of mapped and of hardness."""

STEPS, SPEEDUP, COST = (50, 40, 28), 4.0, 40.0
"""Calibrated at the first of `STEPS`; `COST` in plain runs of one prompt."""

COUNTS = (7, 8, 9, 10, 11)
"""Computed steps of 28."""

EXPONENTS, ORDERS, REPLAYS, DIALS = (1.0, 1.4, 1.8), (0.0, 1.0, 2.0), (0.0, 1.0, 2.0), (2.0, 3.0, 4.0, 4.7)
POWER_STEPS, POWER_PROMPTS = (28, 50), {"dit": 16, "flux": 16, "wan": 8}

WITHIN = 1.5
"""How near the dial was meant to come to the best power schedule, in dB."""

KEYS = {
    "mapped": ("pipeline", "steps"),
    "hardness": ("pipeline", "computed"),
    "power": ("pipeline", "steps", "speedup"),
    "early": ("pipeline", "guidance", "steps"),
    "first": ("pipeline", "speedup"),
}
"""What a row of each table is known by."""

EARLY = (1.0, 1.2, 1.4)
GUIDANCE: dict[str, dict[float, dict[str, Any]]] = {
    "dit": {1.0: {"guidance_scale": 1.0}, 4.0: {}},
    "flux": {1.0: {}, 4.0: {"true_cfg_scale": 4.0, "negative_prompt": ""}},
    "wan": {1.0: {"guidance_scale": 1.0}, 3.0: {}},
}
"""What is changed in a pocket's call for a strength of guidance by two branches; its own strength changes nothing."""

GAPS, FIRST_PROMPTS = (1, 2, 3, 4, 5), {"dit": 8, "flux": 4, "wan": 4}


class Bench:
    """A pocket with prompts, and its plain pictures."""

    SEEDS: ClassVar = {"calibration": 1_000_003, "held_out": 0}

    def __init__(self, pipeline: str, split: str, count: int, steps: int, **changes: Any) -> None:
        pocket = POCKETS[pipeline]
        self.pipe = load_pocket(pipeline)
        self.call = {**pocket.call, "num_inference_steps": steps, **changes}
        self.prompts = pocket.prompts(count, split)  # pyright: ignore[reportArgumentType]
        self.seed = self.SEEDS[split]
        self.run = caller(self.pipe, self.prompts, self.call, self.seed)
        self.plain, self.peak = made(self.pipe, lambda: self.run(range(count)))

    def psnr(self, method: Method) -> list[float]:
        """Of every prompt, in dB to the plain pictures."""
        with accelerate(self.pipe, method):
            pictures, _ = made(self.pipe, lambda: self.run(range(len(self.prompts))))
        return psnr(pictures, self.plain, self.peak)


def calibrated(pipeline: str, steps: int) -> tuple[ScheduledTaylor, float]:
    """The method, and what finding it cost in plain runs of one prompt."""
    pocket = POCKETS[pipeline]
    prompts, call = pocket.prompts(CALIBRATED, "calibration"), {**pocket.call, "num_inference_steps": steps}
    calibration = Calibration(
        load_pocket(pipeline), prompts, SPEEDUP, "plain", COST, None, False, Bench.SEEDS["calibration"], call
    )
    return calibration.found(), calibration.spent


def mapped(pipeline: str) -> Iterator[dict[str, Any]]:
    """Mean and worst PSNR at every number of steps, and on the prompts that it was calibrated with."""
    known: ScheduledTaylor | None = None
    for steps in STEPS:
        own, cost = calibrated(pipeline, steps)
        known = known or own
        bench = Bench(pipeline, "held_out", HELD_OUT, steps)
        row: dict[str, Any] = {"pipeline": pipeline, "steps": steps, "cost": cost}
        for name, method in (("mapped", known), ("own", own), ("online", ScheduledTaylor(speedup=SPEEDUP))):
            found = bench.psnr(method)
            row[name] = {"mean": fmean(found), "worst": min(found)}
        found = Bench(pipeline, "calibration", CALIBRATED, steps).psnr(own)
        yield row | {"calibration": {"mean": fmean(found), "worst": min(found)}}


NOTED: list[NotedPolicy] = []


class NotedPolicy(SchedulePolicy):
    """Keeps what was measured."""

    def __init__(self, settings: ScheduledTaylor) -> None:
        super().__init__(settings)
        self.found: dict[int, float] = {}
        NOTED.append(self)

    def observe(self, measured: Measured) -> None:
        self.found[measured.step] = measured.forecast.error / measured.gap
        super().observe(measured)


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted(ScheduledTaylor):
    """A schedule whose policies keep what was measured."""

    def policy(self) -> SchedulePolicy:
        return NotedPolicy(self)


def hardness(pipeline: str) -> list[dict[str, Any]]:
    """Mean and worst PSNR at equal work, by who gets a step more and who a step less."""
    bench = Bench(pipeline, "held_out", HARD, 28)
    table: dict[int, list[float]] = {}
    errors: dict[int, np.ndarray] = {}
    for count in range(COUNTS[0] - 1, COUNTS[-1] + 2):
        NOTED.clear()
        table[count] = bench.psnr(Noted(speedup=28 / count))
        policies = [policy for policy in NOTED if policy.found]
        first = [list(policy.found.values())[: (count - 1) // 2 + 1] for policy in policies]
        errors[count] = np.log([part[: min(map(len, first))] for part in first])
    rows = []
    for count in COUNTS:
        logs = errors[count] - np.median(errors[count], 0)
        told, made = logs.mean(1), np.array([table[k] for k in (count - 1, count, count + 1)])
        draw = np.random.default_rng(0)
        drawn = [spread(made, draw.permutation(len(told))) for _ in range(200)]
        row: dict[str, Any] = {
            "pipeline": pipeline,
            "computed": count,
            "equal": {"mean": made[1].mean(), "worst": made[1].min()},
            "harder": spread(made, np.argsort(told)),
            "reversed": spread(made, np.argsort(-told)),
            "drawn": {key: fmean(one[key] for one in drawn) for key in ("mean", "worst")},
            "known": spread(made, np.argsort(-made[1])),
            "correlation": float(np.corrcoef(told, made[1])[0, 1]),
            "spread_of_errors": float(20 / np.log(10) * told.std()),
            "spread_of_pictures": float(made[1].std()),
        }
        rows.append(row)
    return rows


def spread(made: np.ndarray, order: Sequence[int] | np.ndarray) -> dict[str, float]:
    """PSNR where the first third of `order` gets a step less and the last third a step more. made: 3 samples."""
    third, chosen = len(order) // 3, np.ones(len(order), int)
    chosen[order[:third]], chosen[order[len(order) - third :]] = 0, 2
    found = made[chosen, np.arange(len(order))]
    return {"mean": float(found.mean()), "worst": float(found.min())}


def power(
    pipeline: str, steps: Sequence[int], prompts: int, speedups: Sequence[float] = DIALS
) -> Iterator[dict[str, Any]]:
    """Mean and worst PSNR of the dial and of every power schedule at each speed-up."""
    for count in steps:
        bench = Bench(pipeline, "held_out", prompts, count)
        for speedup in speedups:
            online = bench.psnr(ScheduledTaylor(speedup=speedup))
            row: dict[str, Any] = {"pipeline": pipeline, "steps": count, "speedup": speedup, "prompts": prompts}
            row["online"] = {"mean": fmean(online), "worst": min(online)}
            row["power"] = []
            for early, order, replay in product(EXPONENTS, ORDERS, REPLAYS):
                method = ScheduledTaylor(speedup=speedup, early=early, order=order, replay=replay)
                found = bench.psnr(method)
                of = {"early": early, "order": order, "replay": replay}
                row["power"].append({**of, "mean": fmean(found), "worst": min(found)})
            yield row


def online(pipeline: str, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of `power` that this pipeline has, with the dial as it is today."""
    own = [row for row in rows if row["pipeline"] == pipeline]
    for steps, prompts in dict.fromkeys((row["steps"], row["prompts"]) for row in own):
        bench = Bench(pipeline, "held_out", prompts, steps)
        for row in own:
            if (row["steps"], row["prompts"]) == (steps, prompts):
                found = bench.psnr(ScheduledTaylor(speedup=row["speedup"]))
                yield {**row, "online": {"mean": fmean(found), "worst": min(found)}}


def early(pipeline: str, steps: Sequence[int], speedups: Sequence[float] = DIALS) -> Iterator[dict[str, Any]]:
    """Mean PSNR over speed-ups of the dial, and of steps laid evenly and denser early, by strength of guidance."""
    for guidance, changes in GUIDANCE[pipeline].items():
        for count in steps:
            bench = Bench(pipeline, "calibration", FIRST_PROMPTS[pipeline], count, **changes)
            row: dict[str, Any] = {"pipeline": pipeline, "guidance": guidance, "steps": count}
            for name, exponent in (("online", None), *((f"{exponent:g}", exponent) for exponent in EARLY)):
                found = [bench.psnr(ScheduledTaylor(speedup=speedup, early=exponent)) for speedup in speedups]
                row[name] = {"mean": fmean(map(fmean, found)), "worst": fmean(map(min, found))}
            yield row


def first(pipeline: str, speedups: Sequence[float] = DIALS) -> Iterator[dict[str, Any]]:
    """Mean and worst PSNR by the length of the first gap, the other steps evenly behind it, at 28 steps."""
    bench = Bench(pipeline, "calibration", FIRST_PROMPTS[pipeline], 28)
    levels = noise_levels(bench.pipe.scheduler)
    assert levels is not None
    for speedup in speedups:
        count = round(28 / speedup)
        online = bench.psnr(ScheduledTaylor(speedup=speedup))
        row: dict[str, Any] = {"pipeline": pipeline, "speedup": speedup, "prompts": len(online)}
        row["online"] = {"mean": fmean(online), "worst": min(online)}
        row["first"] = []
        for gap in GAPS:
            places = after(gap, count, 28)
            if places[1] - places[0] <= places[2] - places[1]:
                method = ScheduledTaylor(speedup=28 / count, levels=tuple(levels[place] for place in places))  # pyright: ignore[reportArgumentType]
                found = bench.psnr(method)
                row["first"].append({"gap": gap, "places": places, "mean": fmean(found), "worst": min(found)})
        yield row


def after(gap: int, count: int, steps: int) -> list[int]:
    """`count` computed steps: the first, one `gap` behind it, and the others evenly, the last run of forecasts shorter.

    >>> after(2, 6, 28), after(5, 6, 28)
    ([0, 2, 8, 14, 19, 25], [0, 5, 10, 15, 20, 26])
    """
    even = (steps - gap - 1.0 + LAST_SKIPS) / (count - 2.0 + LAST_SKIPS)
    return [0, *(round(gap + k * even) for k in range(count - 1))]


def best_power(row: dict[str, Any]) -> dict[str, Any]:
    """The power schedule of the highest mean, found on the prompts that it is shown for."""
    return max(row["power"], key=lambda one: one["mean"])


def page(held: dict[str, Any]) -> str:
    def cell(row: dict[str, Any], key: str) -> str:
        return f"{row[key]['mean']:.1f} ({row[key]['worst']:.1f})"

    lines = [
        "# Schedules at other numbers of steps, and by sample",
        "",
        "Made by `make bench-schedules`. PSNR in dB to the plain pipeline at the same steps, mean (worst).",
        "",
        f"## Calibrated at 50 steps and {SPEEDUP:g}x, used at others",
        "",
        f"{CALIBRATED} prompts to calibrate with, {HELD_OUT} fresh ones; cost in plain runs of one prompt.",
        "",
        "| | steps | cost | own prompts | fresh ones | lost on them | laid online | mapped from 50 | lost by it |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {r['pipeline']} | {r['steps']} | {r['cost']:.0f} | {cell(r, 'calibration')} | {cell(r, 'own')} | "
            f"{r['calibration']['mean'] - r['own']['mean']:.1f} | {cell(r, 'online')} | {cell(r, 'mapped')} | "
            + ("|" if r["steps"] == STEPS[0] else f"{r['own']['mean'] - r['mapped']['mean']:.1f} |")
            for r in held["mapped"]
        ),
        *fresh_ones(held["mapped"]),
        "",
        "## More steps for harder samples, at equal work",
        "",
        "28 steps, laid online. A third of the samples gets one computed step more and a third one less, chosen by how",
        "far off forecasts proved in the first half of their run; the other way round; at random; by the pictures that",
        "come out, which nobody has beforehand. Correlation: of those errors with PSNR, -1 where they told all of it.",
        "",
        "| | computed | equal for all | by errors | reversed | at random | by the pictures | correlation |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {r['pipeline']} | {r['computed']} | "
            + " | ".join(cell(r, key) for key in ("equal", "harder", "reversed", "drawn", "known"))
            + f" | {r['correlation']:.2f} |"
            for r in held["hardness"]
        ),
        "",
        *gains(held["hardness"]),
        *beside_power(held.get("power", [])),
        *by_early(held.get("early", [])),
        *by_first(held.get("first", [])),
    ]
    return "\n".join(lines) + "\n"


def fresh_ones(rows: list[dict[str, Any]]) -> list[str]:
    """The first table in a sentence."""
    others = [row for row in rows if row["steps"] != STEPS[0]]
    if not others:
        return []

    def apart(rows: list[dict[str, Any]], one: str, other: str) -> float:
        return fmean(row[one]["mean"] - row[other]["mean"] for row in rows)

    return [
        "",
        f"On average fresh prompts have {apart(rows, 'calibration', 'own'):.1f} dB less than those it was calibrated "
        f"with, and {apart(rows, 'own', 'online'):.1f} dB more than laid online; mapping costs "
        f"{apart(others, 'own', 'mapped'):.1f} dB.",
    ]


def beside_power(rows: list[dict[str, Any]]) -> list[str]:
    """The third table; nothing where it was not measured."""
    if not rows:
        return []
    lines = [
        "",
        "## Laid online, beside power schedules of equal work",
        "",
        f"The best of {len(EXPONENTS) * len(ORDERS) * len(REPLAYS)} power schedules (exponents "
        f"{', '.join(f'{s:g}' for s in EXPONENTS)}, orders 0 to 2, replay 1, 2 or none) is the best on the very",
        "prompts that it is shown for, which flatters it; how far it is above what is laid online is the last column.",
        "",
        "| | steps | speed-up | prompts | laid online | best power schedule | exponent, order, replay | behind |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in rows:
        best, online = best_power(row), row["online"]
        cells = (
            row["pipeline"],
            f"{row['steps']}",
            f"{row['speedup']:g}x",
            f"{row['prompts']}",
            *(f"{one['mean']:.1f} ({one['worst']:.1f})" for one in (online, best)),
            f"{best['early']:g}, {best['order']:g}, {best['replay']:g}",
            f"{best['mean'] - online['mean']:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    behind = [best_power(row)["mean"] - row["online"]["mean"] for row in rows]
    most = rows[behind.index(max(behind))]
    return [
        *lines,
        "",
        f"Within {WITHIN:g} dB of it in {sum(one <= WITHIN for one in behind)} of {len(rows)} rows, {fmean(behind):.1f}"
        f" dB behind on average and most on {most['pipeline']} at {most['steps']} steps and {most['speedup']:g}x "
        f"({max(behind):.1f} dB).",
    ]


def by_early(rows: list[dict[str, Any]]) -> list[str]:
    """How dense early, by guidance; nothing where it was not measured."""
    if not rows:
        return []
    lines = [
        "",
        "## How dense early, by guidance",
        "",
        f"Mean (worst) over {', '.join(f'{dial:g}' for dial in DIALS)}x on calibration prompts, orders and replay as",
        "measured online: laid online, and at step N (k / K)^s.",
        "",
        f"| | guidance | steps | laid online | {' | '.join(f's = {exponent:g}' for exponent in EARLY)} |",
        "| --- | ---: | ---: | ---: |" + " ---: |" * len(EARLY),
    ]
    for row in rows:
        cells = (f"{row[key]['mean']:.1f} ({row[key]['worst']:.1f})" for key in ("online", *(f"{s:g}" for s in EARLY)))
        lines.append(f"| {row['pipeline']} | {row['guidance']:g} | {row['steps']} | {' | '.join(cells)} |")
    return lines


def by_first(rows: list[dict[str, Any]]) -> list[str]:
    """The fourth table; nothing where it was not measured."""
    if not rows:
        return []
    lines = [
        "",
        "## By the first gap",
        "",
        "28 steps; the second computed step lies so many steps behind the first, the others evenly behind it.",
        "Calibration prompts; orders and replay as measured online.",
        "",
        f"| | speed-up | prompts | laid online | {' | '.join(map(str, GAPS))} |",
        "| --- | ---: | ---: | ---: |" + " ---: |" * len(GAPS),
    ]
    for row in rows:
        by_gap = {one["gap"]: f"{one['mean']:.1f} ({one['worst']:.1f})" for one in row["first"]}
        cells = (
            row["pipeline"],
            f"{row['speedup']:g}x",
            f"{row['prompts']}",
            f"{row['online']['mean']:.1f} ({row['online']['worst']:.1f})",
            *(by_gap.get(gap, "") for gap in GAPS),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def gains(rows: list[dict[str, Any]]) -> list[str]:
    """The second table in sentences."""
    if not rows:
        return []
    told = []
    for key, words in (("harder", "By errors"), ("drawn", "at random"), ("known", "by the pictures")):
        mean, worst = (fmean(r[key][what] - r["equal"][what] for r in rows) for what in ("mean", "worst"))
        told.append(f"{words} {mean:+.2f} dB on average and {worst:+.2f} dB in the worst sample")
    return [
        f"Against equal steps for all: {'; '.join(told)}.",
        f"Errors differ between samples by {fmean(r['spread_of_errors'] for r in rows):.1f} dB (one standard "
        f"deviation), their pictures by {fmean(r['spread_of_pictures'] for r in rows):.1f} dB.",
    ]


def placed(rows: Sequence[dict[str, Any]], fresh: dict[str, Any], key: Sequence[str]) -> list[dict[str, Any]]:
    """`rows` with `fresh` in the place of the one that has the same `key`, pipelines in their order.

    >>> rows = [{"pipeline": "dit", "steps": 50}]
    >>> [row["steps"] for row in placed(rows, {"pipeline": "dit", "steps": 28}, KEYS["mapped"])]
    [50, 28]
    """
    same = [i for i, row in enumerate(rows) if all(row[name] == fresh[name] for name in key)]
    kept = [fresh if i in same else row for i, row in enumerate(rows)]
    in_order = [*kept, *([] if same else [fresh])]
    return sorted(
        in_order,
        key=lambda row: (
            PIPELINES.index(row["pipeline"]),
            *(
                row[name]
                for name in ("guidance", "steps", "speedup")
                if {"guidance", "speedup"} & {*row} and name in row
            ),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what",
        nargs="*",
        default=[],
        help="mapped, hardness, power, early, first, online, pipelines; all but online unless told",
    )
    parser.add_argument("--prompts", type=int, help="held-out prompts of power")
    parser.add_argument("--steps", type=int, nargs="+", default=POWER_STEPS, help="of power and early")
    parser.add_argument("--speedups", type=float, nargs="+", default=DIALS, help="of power and first")
    options = parser.parse_args()
    measures: dict[str, Callable[[str], Iterable[dict[str, Any]]]] = {
        "mapped": mapped,
        "hardness": hardness,
        "power": lambda pipeline: power(
            pipeline, options.steps, options.prompts or POWER_PROMPTS[pipeline], options.speedups
        ),
        "early": lambda pipeline: early(pipeline, options.steps),
        "first": lambda pipeline: first(pipeline, options.speedups),
    }
    torch.set_num_threads(1)
    held: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    held = {part: held.get(part, []) for part in measures} | {k: v for k, v in held.items() if k not in measures}
    parts = set(options.what) & set(measures) or set(measures)
    pipelines = set(options.what) & set(PIPELINES) or set(PIPELINES)
    if "online" in options.what:
        parts = (set(options.what) & set(measures)) | {"online"}
        measures["online"] = lambda pipeline: online(pipeline, tuple(held["power"]))
    for part in measures:
        for pipeline in PIPELINES:
            if part not in parts or pipeline not in pipelines:
                continue
            for row in measures[part](pipeline):
                name = "power" if part == "online" else part
                held[name] = placed(held[name], row, KEYS[name])
                held["environment"] = {**environment("cpu"), "load": os.getloadavg()[0]}
                RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
                RESULTS.with_suffix(".md").write_text(page(held), encoding="utf-8")
    print(page(held))


if __name__ == "__main__":
    main()
