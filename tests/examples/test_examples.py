"""Every example runs and stays short."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from outpace.accel import FAMILIES, METHODS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


TOLD = (
    "speed-up of the denoiser", "PSNR", "nats a byte", "with probability", "mean overlap", "SI-SDR", "named right",
    "squared error", "borders of windows", "in a batch of",
)  # fmt: skip
"""What each example says one of."""

SHORTER = {
    "03_compare_in_python": {"PLAIN_STEPS = 50": "PLAIN_STEPS = 12", "(33, 25, 17)": "(6,)"},
    "04_sparse_attention": {"num_frames=33": "num_frames=17", "num_inference_steps=6": "num_inference_steps=3"},
    "05_language_model": {"else 25": "else 5"},
    "07_lego_panorama": {"STEPS = 20": "STEPS = 5"},
    "08_video_tasks": {"num_inference_steps=30": "num_inference_steps=6"},
    "09_point_clouds": {"num_inference_steps=50": "num_inference_steps=12"},
    "10_convert_a_language_model": {"else 20": "else 4"},
    "11_analyse_a_training": {"else 60": "else 12"},
    "13_segment_with_exits": {"steps=400": "steps=40"},
}
"""What is run shorter by default, by example: what stands there, and what is put in its place."""


def name(path: Path) -> str:
    return path.stem


def test_there_are_examples() -> None:
    numbers = [path.name[:3] for path in EXAMPLES]
    assert len(numbers) >= 5 and sorted(set(numbers)) == numbers, "each has a number of its own"


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_it_is_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """`runs(example, changes)`: it runs, with other text here and there, and tells what it found."""

    def ran(example: Path, changes: Mapping[str, str]) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(example)])
        text = example.read_text(encoding="utf-8")
        for stands, put in changes.items():
            assert stands in text, f"{stands} is no longer there; SHORTER has to follow"
            text = text.replace(stands, put)
        script = tmp_path / example.name
        script.write_text(text, encoding="utf-8")
        run_whole(script)
        out = capsys.readouterr().out
        assert any(words in out for words in TOLD)

    return ran


def run_whole(script: Path) -> None:
    """In this process: that of a program of its own would spend half of its time on imports."""
    threads, known = torch.get_num_threads(), [(registry, list(registry)) for registry in (FAMILIES, METHODS)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
        for registry, before in known:
            for added in set(registry) - set(before):
                registry.remove(added)


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_it_runs(example: Path, runs: Callable[..., None]) -> None:
    runs(example, SHORTER.get(example.stem, {}))


@pytest.mark.slow
@pytest.mark.parametrize("example", [path for path in EXAMPLES if path.stem in SHORTER], ids=name)
def test_it_runs_as_it_is(example: Path, runs: Callable[..., None]) -> None:
    runs(example, {})
