"""What the trained pocket `dit3d` does: the committed figures say so, and the slow tests measure it again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

import outpace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_dit3d", ROOT / "benchmarks" / "dit3d.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_sets(sets: dict[str, dict[str, float]]) -> None:
    for distance in ("chamfer", "emd"):
        score = f"1-nna {distance}"
        assert sets["trained"][score] < 0.9 and sets["trained"][score] < sets["untrained"][score], sets
    assert sets["trained"]["class read"] > 0.8, sets


def test_the_committed_figures_say_what_is_claimed(benchmark: ModuleType):
    report = json.loads((ROOT / "benchmarks" / "results" / "dit3d.json").read_text(encoding="utf-8"))
    check_sets(report["sets"])
    assert report["speed"]["GatedTaylor(threshold=0)"]["identical"]
    assert report["speed"]["GatedTaylor()"]["speed-up of process time"] > 1.0
    page = (ROOT / "docs" / "results_dit3d.md").read_text(encoding="utf-8")
    assert page == benchmark.markdown(report), "write it again: make bench-dit3d"


@pytest.mark.slow
def test_made_clouds_are_hard_to_tell_from_the_data(benchmark: ModuleType):
    check_sets(benchmark.measure_sets(outpace.load_pocket("dit3d"), 40))


@pytest.mark.slow
def test_forecasts_make_it_faster(benchmark: ModuleType):
    pipe = outpace.load_pocket("dit3d")
    assert benchmark.measure_speed(pipe, outpace.GatedTaylor(threshold=0.0), 3)["identical"]
    faster = benchmark.measure_speed(pipe, outpace.GatedTaylor(threshold=0.2), 7)
    assert faster["speed-up of process time"] > 1.1 and faster["points moved by"] < 0.1, faster
