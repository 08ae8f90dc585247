"""Every example runs as a program and stays short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def name(path: Path) -> str:
    return path.stem


def test_there_are_examples() -> None:
    numbers = [path.name[:3] for path in EXAMPLES]
    assert len(numbers) >= 5 and sorted(set(numbers)) == numbers, "each has a number of its own"


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_it_is_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_it_runs(example: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    told = (
        "speed-up of the denoiser", "PSNR", "nats a byte", "with probability", "mean overlap", "SI-SDR", "named right",
        "squared error", "borders of windows",
    )  # fmt: skip
    assert any(words in done.stdout for words in told)
