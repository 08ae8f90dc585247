"""The claims of linear attention on a CPU, measured again; and that its benchmark runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def benchmark(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "linear_attention_cpu", root / "benchmarks" / "linear_attention_cpu.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_measures_and_reports(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--repetitions", "1", "--out", str(tmp_path)])
    benchmark.main()
    report = json.loads((tmp_path / "linear_attention_cpu.json").read_text(encoding="utf-8"))
    assert [case["tokens"] for case in report["cases"]] == [256, 512]
    assert all(seconds > 0 for case in report["cases"] for seconds in case["seconds"].values())
    assert (tmp_path / "linear_attention_cpu.md").read_text(encoding="utf-8") in capsys.readouterr().out


def test_where_it_begins_to_be_faster(benchmark: ModuleType) -> None:
    cases = [{"tokens": t, "speed_up": {"a": s}} for t, s in ((1, 2.0), (2, 0.5), (4, 1.5), (8, 3.0))]
    assert benchmark.faster_from(cases, "a") == 4 and benchmark.faster_from(cases[:2], "a") is None


@pytest.mark.slow
def test_growth_is_linear_and_softmax_is_overtaken(benchmark: ModuleType) -> None:
    cases = [benchmark.measure(tokens, 3) for tokens in (4096, 8192, 16384, 32768)]
    for name in ("gate a channel", "gate a head", "delta rule"):
        assert benchmark.growth(cases, name) < 1.3 < 1.7 < benchmark.growth(cases, "softmax")
        assert cases[-1]["speed_up"][name] > 3
