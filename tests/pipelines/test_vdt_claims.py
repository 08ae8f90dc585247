"""What the trained pocket `vdt` does: the committed figures say so, and the slow tests measure it again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import outpace
from outpace.pipelines.pocket.moving_digits import known_clips

ROOT = Path(__file__).resolve().parents[2]
BEATEN = {
    "interpolate": "linear blend",
    "predict": "nearest frame",
    "backward": "nearest frame",
    "complete": "frame mean",
}
"""A guess that each task has to be nearer to the truth than."""


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_vdt", ROOT / "benchmarks" / "vdt.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_tasks(rows: list[dict[str, Any]], names: list[str]) -> None:
    assert [row["task"] for row in rows] == names
    for row in rows:
        assert row["kept bit for bit"], row
        if row["task"] in BEATEN:
            assert row["model"] < row[BEATEN[row["task"]]], row


def test_the_committed_figures_say_what_is_claimed(benchmark: ModuleType):
    report = json.loads((ROOT / "benchmarks" / "results" / "vdt.json").read_text(encoding="utf-8"))
    check_tasks(report["tasks"], benchmark.ANSWERED)
    assert report["speed"]["GatedTaylor(threshold=0)"]["identical"]
    assert report["speed"]["GatedTaylor()"]["speed-up of process time"] > 1.0
    page = (ROOT / "docs" / "results_vdt.md").read_text(encoding="utf-8")
    assert page == benchmark.markdown(report), "write it again: make bench-vdt"


def test_guesses_are_what_they_are_called(benchmark: ModuleType):
    clip = np.broadcast_to(np.arange(5.0)[:, None, None, None] / 4, (5, 2, 2, 1)).copy()
    mask = np.zeros((5, 2, 2))
    mask[1:4] = 1
    made = {name: guess(clip, mask)[:, 0, 0, 0].tolist() for name, guess in benchmark.GUESSES.items()}
    assert made["linear blend"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert made["nearest frame"] == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert made["frame mean"] == [0.0, 0.5, 0.5, 0.5, 1.0]
    errors = benchmark.errors(np.stack([clip + 0.5]), np.stack([clip]), mask[None])
    assert errors.tolist() == [0.25]


@pytest.mark.slow
def test_one_model_beats_plain_guesses_at_every_task(benchmark: ModuleType):
    pipe = outpace.load_pocket("vdt")
    clips = known_clips(range(90_000, 90_032))
    check_tasks([benchmark.measure_task(pipe, task, clips, 30) for task in benchmark.ANSWERED], benchmark.ANSWERED)


@pytest.mark.slow
def test_forecasts_make_it_faster(benchmark: ModuleType):
    pipe = outpace.load_pocket("vdt")
    assert benchmark.measure_speed(pipe, outpace.GatedTaylor(threshold=0.0), 20, 3)["identical"]
    faster = benchmark.measure_speed(pipe, outpace.GatedTaylor(), 50, 7)
    assert faster["speed-up of process time"] > 1.2 and faster["psnr_decibel"] > 25, faster
