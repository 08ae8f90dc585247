"""The one command for a GPU runs its whole path at toy sizes on a CPU, and says in one line where it cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from forked import Forked, finished, needs_fork, scripted

pytestmark = needs_fork


def benchmark(root: Path, folder: Path, *options: str) -> Forked:
    return finished(scripted(root / "benchmarks" / "gpu.py", *options), folder / "told")


@pytest.mark.slow
def test_rehearsal_checks_everything_before_it_times_anything(root: Path, tmp_path: Path) -> None:
    done = benchmark(root, tmp_path, "--rehearse", "--out", str(tmp_path))
    assert done.returncode == 0, done.err
    (written,) = tmp_path.glob("gpu_*.json")
    report = json.loads(written.read_text(encoding="utf-8"))
    checked = {error["case"] for error in report["errors"]}
    assert {"small", "weighted sum", "forecast error", "linear attention", "routed experts"} <= checked
    assert {error["dtype"] for error in report["errors"]} == {"float32", "float16", "bfloat16"}
    assert all(error["agrees"] for error in report["errors"]) and not report["left_out"]
    (case,) = report["attention"]
    assert [line["sparsity"] for line in case["sparse"][::3]] == [0.0, 0.5, 0.8, 0.9]
    (model,) = report["geometries"]
    assert 0 < model["eager"]["forecast_milliseconds"] < model["eager"]["step_milliseconds"]
    assert model["compiled"]["graphs_added"] == model["compiled"]["graph_breaks"] == 0
    text = written.with_suffix(".md").read_text(encoding="utf-8")
    assert text.startswith(f"# outpace on {report['environment']['device']}")
    for heading in ("Passes over what is remembered", "Block-sparse attention on", "Published geometries on"):
        assert heading in text
    assert "bench-gpu:" in (root / "Makefile").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_there_is_no_time_for_is_named(root: Path, tmp_path: Path) -> None:
    done = benchmark(root, tmp_path, "--rehearse", "--seconds", "0", "--out", str(tmp_path))
    assert done.returncode == 0, done.err
    (written,) = tmp_path.glob("gpu_*.json")
    report = json.loads(written.read_text(encoding="utf-8"))
    assert report["left_out"] == ["toy flux", "toy picture"] and not report["geometries"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(root: Path, tmp_path: Path) -> None:
    done = benchmark(root, tmp_path)
    assert done.returncode == 2 and not done.out
    assert done.err.count("\n") == 1 and done.err.startswith("no CUDA device here")
