"""What a schedule calibrated at one number of steps is worth at others, and whether measured errors say who is hard.

    python benchmarks/schedules.py [mapped|hardness|power|early|misses|first|online] [PIPELINE ...] [--prompts COUNT]
        [--steps STEPS ...] [--speedups SPEEDUP ...]

power: laid online, beside every power schedule of equal work (step N (k / K)^s with an order and a degree of the
replay that stay the same) on held-out prompts. online: only what is laid online anew, in the rows that power has.
early: steps laid evenly and denser early, with and without guidance, on calibration prompts. misses: with
and without what follows from a forecast that missed, under strong guidance, on calibration prompts. first: the
second computed step after one, two or more steps and the others evenly behind it, on calibration prompts. mapped:
calibrated at 50 steps on calibration prompts, used at 50, 40 and 28 on held-out ones, beside a schedule calibrated at
that number of steps and one laid online. hardness: equal work, a step more for a third of the samples whose forecasts
proved worst in the first half of their run and a step less for the third where they proved best; beside the same
number of steps for all, the other way round, drawn at random, and by the pictures themselves, which nobody has
beforehand. Writes benchmarks/results/schedules.json and schedules.md after every row, in the place of the row of the
same pipeline, steps and speed-up.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks.schedules_page import (
    CALIBRATED,
    COST,
    DIALS,
    EARLY,
    EXPONENTS,
    FASTER,
    GAPS,
    HARD,
    HELD_OUT,
    ORDERS,
    REPLAYS,
    SPEEDUP,
    STEPS,
    page,
)
from outpace.accel import Method, ScheduledTaylor, accelerate
from outpace.accel.calibration.runs import caller, made, psnr
from outpace.accel.calibration.schedule import Bench as Calibration
from outpace.accel.forecast.errors import Measured
from outpace.accel.levels import noise_levels
from outpace.accel.methods import scheduled_taylor
from outpace.accel.methods.scheduled_taylor import LAST_SKIPS, SchedulePolicy
from outpace.evaluation.environment import environment
from outpace.pipelines import POCKETS, load_pocket

RESULTS = Path(__file__).resolve().parent / "results" / "schedules.json"
PIPELINES = ("dit", "flux", "wan")
LOOKED_AT = "photo"
"""Where `early` and `misses` look too, in bfloat16, when asked for by name."""
COUNTS = (7, 8, 9, 10, 11)
"""Computed steps of 28."""

POWER_STEPS, POWER_PROMPTS = (28, 50), {"dit": 16, "flux": 16, "wan": 8}

KEYS = {
    "mapped": ("pipeline", "steps"),
    "hardness": ("pipeline", "computed"),
    "power": ("pipeline", "steps", "speedup"),
    "early": ("pipeline", "guidance", "steps"),
    "misses": ("pipeline", "guidance", "steps"),
    "first": ("pipeline", "speedup"),
}
"""What a row of each table is known by."""

GUIDANCE: dict[str, dict[float, dict[str, Any]]] = {
    "dit": {1.0: {"guidance_scale": 1.0}, 4.0: {}},
    "flux": {1.0: {}, 4.0: {"true_cfg_scale": 4.0, "negative_prompt": ""}},
    "wan": {1.0: {"guidance_scale": 1.0}, 3.0: {}},
    LOOKED_AT: {6.0: {"negative_prompt": ""}},
}
"""What is changed in a pocket's call for a strength of guidance by two branches; its own strength changes nothing."""

STRONG: dict[str, dict[str, Any]] = {
    "dit": {"guidance_scale": 8.0},
    "flux": {"true_cfg_scale": 6.0, "negative_prompt": ""},
    "wan": {"guidance_scale": 6.0},
    LOOKED_AT: {"true_cfg_scale": 6.0, "negative_prompt": ""},
}
"""Guidance under which forecasts miss; `LOOKED_AT` is guided so by itself."""

FIRST_PROMPTS = {"dit": 8, "flux": 4, "wan": 4, LOOKED_AT: 4}


class Bench:
    """A pocket with prompts, and its plain pictures."""

    SEEDS: ClassVar = {"calibration": 1_000_003, "held_out": 0}

    def __init__(self, pipeline: str, split: str, count: int, steps: int, **changes: Any) -> None:
        pocket = POCKETS[pipeline]
        self.pipe = load_pocket(pipeline)
        if pipeline == LOOKED_AT:
            self.pipe.to(torch.bfloat16)
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


def in_short(found: Sequence[float]) -> dict[str, float]:
    """What a row keeps of the PSNR of every prompt."""
    return {"mean": fmean(found), "worst": min(found)}


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
            row[name] = in_short(bench.psnr(method))
        bench = Bench(pipeline, "calibration", CALIBRATED, steps)
        for name, method in (("own", own), ("online", ScheduledTaylor(speedup=SPEEDUP))):
            row[f"{name} there"] = in_short(bench.psnr(method))
        yield row


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
            row["online"] = in_short(online)
            row["power"] = []
            for early, order, replay in product(EXPONENTS, ORDERS, REPLAYS):
                method = ScheduledTaylor(speedup=speedup, early=early, order=order, replay=replay)
                found = bench.psnr(method)
                of = {"early": early, "order": order, "replay": replay}
                row["power"].append(of | in_short(found))
            yield row


def online(pipeline: str, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of `power` that this pipeline has, with the dial as it is today."""
    own = [row for row in rows if row["pipeline"] == pipeline]
    for steps, prompts in dict.fromkeys((row["steps"], row["prompts"]) for row in own):
        bench = Bench(pipeline, "held_out", prompts, steps)
        for row in own:
            if (row["steps"], row["prompts"]) == (steps, prompts):
                yield {**row, "online": in_short(bench.psnr(ScheduledTaylor(speedup=row["speedup"])))}


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


def misses(pipeline: str, steps: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Mean and worst PSNR by speed-up, with what follows from a forecast that missed and without."""
    for count in steps:
        changes = STRONG[pipeline]
        bench = Bench(pipeline, "calibration", FIRST_PROMPTS[pipeline], count, **changes)
        guidance = next(value for value in changes.values() if value)
        row: dict[str, Any] = {"pipeline": pipeline, "guidance": guidance, "steps": count}
        known = {name: getattr(scheduled_taylor, name) for name in ("FAR", "LOST")}
        for name, far in (("without", dict.fromkeys(known, math.inf)), ("with", known)):
            with patch.multiple(scheduled_taylor, **far):
                row[name] = [in_short(bench.psnr(ScheduledTaylor(speedup=speedup))) for speedup in FASTER]
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
        row["online"] = in_short(online)
        row["first"] = []
        for gap in GAPS:
            places = after(gap, count, 28)
            if places[1] - places[0] <= places[2] - places[1]:
                method = ScheduledTaylor(speedup=28 / count, levels=tuple(levels[place] for place in places))  # pyright: ignore[reportArgumentType]
                found = bench.psnr(method)
                row["first"].append({"gap": gap, "places": places} | in_short(found))
        yield row


def after(gap: int, count: int, steps: int) -> list[int]:
    """`count` computed steps: the first, one `gap` behind it, and the others evenly, the last run of forecasts shorter.

    >>> after(2, 6, 28), after(5, 6, 28)
    ([0, 2, 8, 14, 19, 25], [0, 5, 10, 15, 20, 26])
    """
    even = (steps - gap - 1.0 + LAST_SKIPS) / (count - 2.0 + LAST_SKIPS)
    return [0, *(round(gap + k * even) for k in range(count - 1))]


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
            (*PIPELINES, LOOKED_AT).index(row["pipeline"]),
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
        help="mapped, hardness, power, early, misses, first, online, pipelines; all but online unless told",
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
        "misses": lambda pipeline: misses(pipeline, options.steps),
        "first": lambda pipeline: first(pipeline, options.speedups),
        "online": lambda pipeline: online(pipeline, held["power"]),
    }
    torch.set_num_threads(1)
    held: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    held = {part: held.get(part, []) for part in KEYS} | {k: v for k, v in held.items() if k not in KEYS}
    parts = set(options.what) & set(measures) or set(KEYS)
    pipelines = set(options.what) & {*PIPELINES, LOOKED_AT} or set(PIPELINES)
    for part in measures:
        for pipeline in (*PIPELINES, LOOKED_AT):
            if (
                part not in parts
                or pipeline not in pipelines
                or (pipeline == LOOKED_AT and part not in ("early", "misses"))
            ):
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
