"""Every example runs and stays short."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from outpace.accel import FAMILIES

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
def test_it_runs(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: that of a program of its own would spend half of its time on imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    threads, families = torch.get_num_threads(), list(FAMILIES)
    try:
        runpy.run_path(str(example), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
        for added in set(FAMILIES) - set(families):
            FAMILIES.remove(added)
    told = (
        "speed-up of the denoiser", "PSNR", "nats a byte", "with probability", "mean overlap", "SI-SDR", "named right",
        "squared error", "borders of windows", "in a batch of",
    )  # fmt: skip
    out = capsys.readouterr().out
    assert any(words in out for words in told)
