"""What the trained pocket `lego` does: the committed figures say so, and the slow tests measure it again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import outpace
from outpace.pipelines.lego import skip_brick

ROOT = Path(__file__).resolve().parents[2]
LATE = "image brick left out of the last 40 %"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_lego", ROOT / "benchmarks" / "lego.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pipe() -> Any:
    return outpace.load_pocket("lego")


def check_calls(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["calls"] == row["wanted"], row


def check_canvases(rows: list[dict[str, Any]]) -> None:
    assert {tuple(row["size"]) for row in rows} == {(64, 64), (32, 96)}
    for row in rows:
        assert row["finite"]
        if row["overlap"]:
            assert max(ratio["near"] for ratio in row["seams"].values()) <= 1.3, row


def test_the_committed_figures_say_what_is_claimed(benchmark: ModuleType):
    report = json.loads((ROOT / "benchmarks" / "results" / "lego.json").read_text(encoding="utf-8"))
    check_calls(report["calls"])
    distance = {row["share"]: row["feature distance"] for row in report["quality"]}
    assert distance[0.3] <= 1.25 * distance[0.0] < distance[1.0]
    assert 0.25 <= report["speed"][LATE]["saved"] <= 0.32
    assert report["speed"]["`GatedTaylor(threshold=0)`"]["psnr_decibel"] is None
    assert report["speed"]["`GatedTaylor()`"]["speed-up"] > 1.0
    check_canvases(report["canvases"])
    assert all(ratio["near"] <= 1.15 < ratio["all"] for ratio in report["drawn seams"].values())
    page = (ROOT / "docs" / "results_lego.md").read_text(encoding="utf-8")
    assert page == benchmark.markdown(report), "write it again: make bench-lego"


def test_a_seam_is_seen(benchmark: ModuleType):
    smooth = np.broadcast_to(np.linspace(0, 1, 64)[:, None], (2, 64, 64, 3)).copy()
    smooth += np.linspace(0, 1, 64)[:, None, None]
    assert benchmark.seam_ratio(smooth, 32) == pytest.approx(1.0)
    smooth[:, 32:] += 0.1
    assert benchmark.seam_ratio(smooth, 32) > 5


@pytest.mark.slow
def test_the_pocket_calls_its_bricks_as_scheduled(benchmark: ModuleType, pipe: Any):
    check_calls(benchmark.measure_calls(pipe, 10))


@pytest.mark.slow
def test_leaving_out_the_image_brick_late_saves_time(benchmark: ModuleType, pipe: Any):
    benchmark.make(pipe, 8, 2)
    row = benchmark.measure_speed(pipe, skip_brick(pipe, 0.4, steps=20), 20, pairs=5)
    assert 0.21 <= row["saved"] <= 0.36, row


@pytest.mark.slow
def test_leaving_it_out_of_three_steps_in_ten_costs_little(benchmark: ModuleType, pipe: Any):
    real = benchmark.digit_features(list(benchmark.held_out_digits(96)))
    rows = [benchmark.measure_quality(pipe, share, 96, 12, real) for share in (0.0, 0.3, 1.0)]
    none, some, all_ = (row["feature distance"] for row in rows)
    assert some <= 1.25 * none and all_ > none


@pytest.mark.slow
def test_larger_canvases_show_no_seams(benchmark: ModuleType, pipe: Any):
    check_canvases([benchmark.measure_canvas(pipe, size, 16, 40, 10) for size in benchmark.CANVASES])
