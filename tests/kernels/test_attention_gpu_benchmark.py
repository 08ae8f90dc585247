"""The benchmark for GPUs runs from end to end at toy sizes, and says in one line where it cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from forked import Forked, finished, needs_fork, scripted

pytestmark = needs_fork


def benchmark(root: Path, folder: Path, *options: str) -> Forked:
    return finished(scripted(root / "benchmarks" / "attention_gpu.py", *options), folder / "told")


def test_rehearsal_checks_times_and_reports(root: Path, tmp_path: Path) -> None:
    done = benchmark(root, tmp_path, "--rehearse", "--cases", "picture", "--out", str(tmp_path))
    assert done.returncode == 0, done.err
    (written,) = tmp_path.glob("attention_*.json")
    report = json.loads(written.read_text(encoding="utf-8"))
    assert all(error["agrees"] for error in report["errors"]) and len(report["errors"]) == 50
    (case,) = report["cases"]
    assert [line["sparsity"] for line in case["sparse"][::3]] == [0.0, 0.5, 0.8, 0.9]
    assert [line["density"] for line in case["sparse"][::3]] == sorted(
        (line["density"] for line in case["sparse"][::3]), reverse=True
    )
    assert all(line["milliseconds"] > 0 and line["speedup"] > 0 for line in case["sparse"])
    assert f"| {case['sparse'][-1]['speedup']:.2f} (" in written.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(root: Path, tmp_path: Path) -> None:
    done = benchmark(root, tmp_path)
    assert done.returncode == 2 and not done.out
    assert done.err.count("\n") == 1 and done.err.startswith("no CUDA device here")
