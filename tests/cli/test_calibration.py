"""`outpace calibration`: the report of a classifier, and what it says to requests that cannot be met."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from outpace.cli import main
from outpace.pipelines.ladine import LadineDenoiser, LadineEncoder, LadineMapping, LadinePipeline, LadineScheduler
from outpace.pipelines.ladine.suite import WAYS


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("ladine")
    LadinePipeline(
        LadineEncoder(width=16, num_layers=2, num_heads=2),
        LadineMapping(members=2, token_width=16, width=8),
        LadineDenoiser(members=2, width=8, num_train_timesteps=20),
        LadineScheduler(num_train_timesteps=20, prediction_type="sample"),
    ).save_pretrained(home)
    return home


def test_it_writes_a_report_that_can_be_made_again(folder: Path, tmp_path: Path) -> None:
    words = ("calibration", folder, "--corruption", "noise-50", "--corruption", "fgsm-3", "--steps", 2, "--samples", 2)
    done = run(*words, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert all(label in done.stdout for label in WAYS.values()) and "accuracy" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["corruptions"] == ["clean", "noise-50", "fgsm-3"] and results["pictures"] == 297
    assert results["command"].endswith("--steps 2 --samples 2 --corruption noise-50 --corruption fgsm-3")
    page = (tmp_path / "report.html").read_text()
    again = run("report", tmp_path)
    assert again.exit_code == 0 and (tmp_path / "report.html").read_text() == page
    told = json.loads(run(*words, "--out", tmp_path, "--json").stdout)
    assert told["cells"] == results["cells"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--corruption", "noise-55"), "no corruption 'noise-55'; did you mean 'noise-5"),
        (("--corruption", "clean"), "at least one corruption"),
        (("--steps", "21"), "takes 1 to 20"),
        (("--out", __file__), "cannot write"),
    ],
)
def test_one_line_says_what_is_wrong(folder: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = run("calibration", folder, "--out", tmp_path, *words)
    assert done.exit_code == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_pipelines_that_make_pictures_are_refused(tmp_path: Path) -> None:
    done = run("calibration", "dit", "--out", tmp_path)
    assert done.exit_code == 2 and "'dit' is a DiTPipeline, which classifies nothing" in done.stderr
    done = run("calibration", "ladin", "--out", tmp_path)
    assert done.exit_code == 2 and "did you mean 'ladine'?" in done.stderr
