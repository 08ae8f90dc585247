"""The benchmark of published geometries runs from end to end at toy sizes, and says in one line where it cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from forked import Forked, finished, needs_fork, scripted

pytestmark = needs_fork


def benchmark(root: Path, folder: Path, *options: str) -> Forked:
    return finished(scripted(root / "benchmarks" / "geometry_gpu.py", *options), folder / "told")


@pytest.mark.slow
def test_rehearsal_measures_and_reports(root: Path, tmp_path: Path) -> None:
    done = benchmark(root, tmp_path, "--rehearse", "--out", str(tmp_path))
    assert done.returncode == 0, done.err
    (written,) = tmp_path.glob("geometry_*.json")
    report = json.loads(written.read_text(encoding="utf-8"))
    assert report["weights"] == "random" and [f["model"] for f in report["geometries"]] == ["toy flux", "toy wan"]
    for facts in report["geometries"]:
        assert "error" not in facts and "error" not in facts["compiled"], facts
        for found in (facts["eager"], facts["compiled"]):
            # Two are computed, then every third: 0, 1, 4 and 7 of 8 calls.
            assert found["computed_share"] == 0.5
            assert 0 < found["forecast_milliseconds"] < found["step_milliseconds"]
        assert 1 < facts["at_most"] < 2
        assert facts["compiled"]["graphs"] > 0
        assert facts["compiled"]["graphs_added"] == facts["compiled"]["graph_breaks"] == 0
    text = written.with_suffix(".md").read_text(encoding="utf-8")
    assert "Weights are random" in text and text.count("| toy wan |") == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(root: Path, tmp_path: Path) -> None:
    done = benchmark(root, tmp_path)
    assert done.returncode == 2 and not done.out
    assert done.err.count("\n") == 1 and done.err.startswith("no CUDA device here")
