"""The claim of routed experts on a CPU, measured again; and that its benchmark runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from forked import finished, needs_fork, scripted


def benchmark(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("moe_cpu", root / "benchmarks" / "moe_cpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@needs_fork
def test_the_benchmark_measures_and_reports(root: Path, tmp_path: Path) -> None:
    quick = ("--quick", "--out", str(tmp_path), "--repetitions", "2")
    done = finished(scripted(root / "benchmarks" / "moe_cpu.py", *quick), tmp_path / "told")
    assert done.returncode == 0, done.err
    report = json.loads((tmp_path / "moe_cpu.json").read_text(encoding="utf-8"))
    assert report["automatic"] == "loop" and [case["activation"] for case in report["cases"]] == ["gelu_tanh", "silu"]
    for case in report["cases"]:
        for part in (case["forward"], case["training"]):
            assert part["dense_seconds"] > 0 and part["loop"]["least"] <= part["loop"]["median"] <= part["loop"]["most"]
    text = (tmp_path / "moe_cpu.md").read_text(encoding="utf-8")
    assert text in done.out and "37.5% of the FLOPs" in text and "| SwiGLU | 64 | 128 | 1 |" in text


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("width", "tokens"), [(384, 256), (384, 1024), (768, 1024), (1152, 1024)])
def test_speed_beside_the_dense_layer(root: Path, width: int, tokens: int, threads: int) -> None:
    """At most 0.6 of the dense layer's time; a machine that does other work gets three attempts.

    Not so for the smallest layer on two threads (about 0.7 in benchmarks/results/moe_cpu.md, where the reason stands).
    """
    module, before = benchmark(root), torch.get_num_threads()
    most = 0.75 if (width, tokens, threads) == (384, 256, 2) else 0.6
    seen = []
    try:
        for _ in range(3):
            measured = module.measure(module.Case(width, tokens, "gelu_tanh", threads), 9)
            seen.append(measured["forward"]["loop"]["median"])
            if seen[-1] <= most:
                return
    finally:
        torch.set_num_threads(before)
    pytest.fail(f"time beside the dense layer: {seen}; expected at most {most}")
