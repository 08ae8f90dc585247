"""The speed of the vision kernels: that the benchmark runs and agrees with plain torch, its claims measured again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def benchmark(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("vision_kernels", root / "benchmarks" / "vision_kernels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_measures_and_draws(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--repetitions", "1", "--out", str(tmp_path)])
    benchmark.main()
    report = json.loads((tmp_path / "benchmarks" / "results" / "vision_kernels.json").read_text(encoding="utf-8"))
    assert [case["tokens"] for case in report["mixers"]["cases"]] == [64, 256]
    assert set(report["kernels"]) == set(benchmark.KERNELS)
    assert (tmp_path / "docs" / "results_vision_kernels.md").read_text(encoding="utf-8") in capsys.readouterr().out
    assert (tmp_path / "docs" / "img" / "vision_kernels.png").stat().st_size > 10_000


def test_the_page_is_what_the_benchmark_wrote(benchmark: ModuleType, root: Path) -> None:
    report = json.loads((root / "benchmarks" / "results" / "vision_kernels.json").read_text(encoding="utf-8"))
    page = (root / "docs" / "results_vision_kernels.md").read_text(encoding="utf-8")
    assert benchmark.markdown(report) == page
    assert set(report["kernels"]) == set(benchmark.KERNELS), "a kernel was added: run `make bench-vision`"


@pytest.mark.slow
def test_windows_and_gated_linear_attention_grow_linearly_and_overtake_full_attention(benchmark: ModuleType) -> None:
    cases = [benchmark.measure_mixers(side, 3) for side in (32, 64, 96)]
    full, *others = cases[0]["seconds"]
    assert benchmark.growth(cases, full, 1024) > 1.7
    for name in others:
        assert benchmark.growth(cases, name, 1024) < 1.3
        assert cases[-1]["speed_up"][name] > cases[0]["speed_up"][name] and cases[-1]["speed_up"][name] > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["local-global attention", "dynamic depthwise convolution"])
def test_kernels_that_gather_less_are_faster(benchmark: ModuleType, name: str) -> None:
    assert benchmark.measure_kernel(name, 64, 5)["speed_up"]["ours"] > 2
