"""What benchmarks/schedules.py measured, and, slowly, what a schedule is worth at other numbers of steps."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from outpace.accel import ScheduledTaylor
from outpace.accel.methods import scheduled_taylor

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_schedules", ROOT / "benchmarks" / "schedules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables(benchmark: ModuleType) -> ModuleType:
    return sys.modules[benchmark.page.__module__]


def test_the_page_is_what_was_measured(benchmark: ModuleType) -> None:
    held = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    assert benchmark.RESULTS.with_suffix(".md").read_text(encoding="utf-8") == benchmark.page(held)
    assert {row["pipeline"] for part in ("mapped", "hardness") for row in held[part]} >= {"dit", "flux"}


def test_how_far_the_dial_is_behind_power_schedules_is_told_as_measured(
    benchmark: ModuleType, tables: ModuleType
) -> None:
    rows = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))["power"]
    behind = [tables.best_power(row)["mean"] - row["online"]["mean"] for row in rows]
    assert len(rows) == len(benchmark.PIPELINES) * len(benchmark.POWER_STEPS) * len(benchmark.DIALS)
    told = " ".join((ROOT / "docs" / "scheduling.md").read_text(encoding="utf-8").split())
    near = sum(one <= tables.WITHIN for one in behind)
    assert f"within 1.5 dB of it in {near} of {len(rows)} rows" in told
    assert f"{sum(behind) / len(rows):.1f} dB behind on average" in told and f"({max(behind):.1f} dB)" in told


def test_how_dense_early_by_guidance_is_told_as_measured(benchmark: ModuleType, tables: ModuleType) -> None:
    rows = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))["early"]
    table = [line for line in tables.by_early(rows) if line.startswith("|")]
    of_shipped = [row for row in rows if row["pipeline"] in benchmark.PIPELINES]
    assert len(of_shipped) == 2 * len(benchmark.PIPELINES) * len(benchmark.POWER_STEPS)
    assert len(rows) - len(of_shipped) == len(table) - 2 - len(of_shipped) >= 1
    assert "\n".join(table) in (ROOT / "docs" / "scheduling.md").read_text(encoding="utf-8")


def test_what_a_shorter_gap_behind_a_miss_brings_is_told_as_measured(benchmark: ModuleType, tables: ModuleType) -> None:
    rows = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))["misses"]
    table = [line for line in tables.by_misses(rows) if line.startswith("|")]
    assert {row["pipeline"] for row in rows} == set(benchmark.STRONG) and len(table) == len(rows) + 2
    assert "\n".join(table) in (ROOT / "docs" / "scheduling.md").read_text(encoding="utf-8")


def test_a_miss_changes_nothing_in_what_the_rule_is_held_against(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bench:
        def __init__(self, pipeline: str, split: str, count: int, steps: int, **changes: float) -> None:
            assert (pipeline, split, changes) == ("wan", "calibration", benchmark.STRONG["wan"])

        def psnr(self, method: ScheduledTaylor) -> list[float]:
            return [method.speedup if scheduled_taylor.FAR < 1 else -method.speedup]

    monkeypatch.setattr(benchmark, "Bench", Bench)
    (row,) = benchmark.misses("wan", [28])
    assert row["guidance"] == 6.0 and [one["mean"] for one in row["with"]] == list(benchmark.FASTER)
    assert [one["mean"] for one in row["without"]] == [-speedup for speedup in benchmark.FASTER]


def test_what_calibration_gains_on_fresh_prompts_is_told_as_measured(benchmark: ModuleType, tables: ModuleType) -> None:
    rows = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))["mapped"]
    assert [(row["pipeline"], row["steps"]) for row in rows] == [
        (pipeline, steps) for pipeline in benchmark.PIPELINES for steps in benchmark.STEPS
    ]
    assert all(row["cost"] <= benchmark.COST for row in rows)
    table = [line for line in benchmark.page({"mapped": rows, "hardness": []}).splitlines() if line.startswith("|")]
    page = (ROOT / "docs" / "scheduling.md").read_text(encoding="utf-8")
    assert "\n".join(table[: len(rows) + 2]) in page
    assert " ".join(tables.fresh_ones(rows)).strip() in " ".join(page.split())


def test_what_is_laid_online_is_measured_again_beside_the_power_schedules_that_are_there(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bench:
        def __init__(self, pipeline: str, split: str, count: int, steps: int) -> None:
            self.count, self.steps = count, steps

        def psnr(self, method: ScheduledTaylor) -> list[float]:
            return [self.steps + method.speedup] * self.count

    monkeypatch.setattr(benchmark, "Bench", Bench)
    rows = [
        {"pipeline": name, "steps": steps, "speedup": 2.0, "prompts": 3, "online": {}, "power": [steps]}
        for name in ("dit", "flux") for steps in (28, 50)
    ]  # fmt: skip
    found = list(benchmark.online("flux", rows))
    assert found == [{**row, "online": {"mean": row["steps"] + 2.0, "worst": row["steps"] + 2.0}} for row in rows[2:]]


def test_the_second_computed_step_is_laid_and_the_others_behind_it(benchmark: ModuleType) -> None:
    for gap in benchmark.GAPS:
        places = benchmark.after(gap, 6, 28)
        assert places[:2] == [0, gap] and len(places) == 6 and places == sorted(set(places)) and places[-1] < 28
    assert benchmark.after(5, 6, 28) == [0, 5, 10, 15, 20, 26]


def test_a_row_takes_the_place_of_its_like(benchmark: ModuleType) -> None:
    rows = [{"pipeline": "dit", "steps": 50, "mapped": 1}, {"pipeline": "flux", "steps": 50, "mapped": 2}]
    fresh = {"pipeline": "dit", "steps": 50, "mapped": 3}
    assert benchmark.placed(rows, fresh, ("pipeline", "steps")) == [fresh, rows[1]]
    other = {"pipeline": "dit", "steps": 28, "mapped": 4}
    assert benchmark.placed(rows, other, ("pipeline", "steps")) == [rows[0], other, rows[1]]


def test_a_step_is_moved_from_the_first_third_to_the_last(benchmark: ModuleType) -> None:
    made = np.array([[10.0] * 6, [20.0] * 6, [30.0] * 6])
    made[:, 5] += 5.0  # the last sample is easy
    assert benchmark.spread(made, [0, 1, 2, 3, 4, 5]) == {"mean": (10 + 10 + 20 + 20 + 30 + 35) / 6, "worst": 10.0}
    assert benchmark.spread(made, [5, 4, 3, 2, 1, 0]) == {"mean": (15 + 10 + 20 + 20 + 30 + 30) / 6, "worst": 10.0}


@pytest.mark.slow
def test_a_schedule_calibrated_at_50_steps_is_no_worse_at_40_and_28_than_one_laid_online(benchmark: ModuleType) -> None:
    """On prompts that it was not calibrated on; one that was calibrated at that number of steps is better still."""
    rows = {row["steps"]: row for row in benchmark.mapped("dit")}
    print(
        {steps: {key: round(row[key]["mean"], 2) for key in ("mapped", "own", "online")} for steps, row in rows.items()}
    )
    for steps in (40, 28):
        assert rows[steps]["mapped"]["mean"] >= rows[steps]["online"]["mean"] - 1.0
