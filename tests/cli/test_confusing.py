"""What leaves a person at a shell guessing: names that exist elsewhere, walls of words, silence, false intervals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from outpace.cli import main
from outpace.evaluation.diff import Change, Difference, table


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


@pytest.mark.parametrize("steps", [20, 50])
def test_a_point_that_is_not_there_at_this_number_of_steps_is_answered_with_those_that_are(
    steps: int, tmp_path: Path
) -> None:
    ran = run("compare", "dit", "--prompts", 1, "--steps", steps, "--methods", "gated-99", "--out", tmp_path / "out")
    assert ran.exit_code == 2 and f"at {steps} steps (there are gated-" in ran.stderr
    assert len(ran.stderr) < 300 and not (tmp_path / "out").exists()


def test_one_prompt_is_enough_to_convert(tmp_path: Path) -> None:
    ran = run("convert", "dit", "--to", "width", "--prompts", 1, "--steps", 2, "--device", "cpu",
              "--out", tmp_path / "narrow")  # fmt: skip
    assert ran.exit_code == 0, ran.output


@pytest.mark.parametrize("device", ["mps", "cuda:99", "xpu"])
def test_a_device_that_is_not_there_is_told_in_a_short_line(device: str) -> None:
    ran = run("generate", "dit", "--prompt", 3, "--device", device)
    assert ran.exit_code == 2 and f"'{device}'" in ran.stderr and "outpace doctor" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1 and len(ran.stderr) < 300


def test_one_request_has_no_interval() -> None:
    one = Change(
        contender="gated", quantity="PSNR to plain", unit="dB", before=30.0, after=31.0, value=1.0, low=1.0, high=1.0,
        n=1, p_adjusted=1.0,
    )  # fmt: skip
    found = Difference(
        setting=(), comparable=True, requests=1, changes=(one,), only_before=(), only_after=(), broken=(), mended=()
    )
    assert "| +1 | 1 |" in table(found)
    several = replace(one, low=0.5, high=1.5, n=4)
    assert "| +1 (+0.5 to +1.5) | 4 |" in table(replace(found, requests=4, changes=(several,)))


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("convert", ("convert", "dit", "--to", "width", "--prompts", 1, "--steps", 2, "--out", "OUT"), "converting"),
        ("pocket", ("pocket", "check", "dit", "--samples", 2, "--steps", 2), "dit 1-2 of 2"),
    ],
)
def test_what_takes_long_shows_how_far_it_is(
    command: str, words: tuple[Any, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for watching in (False, True):
        monkeypatch.setattr(f"outpace.cli.{command}.watched", lambda as_json=False, shown=watching: shown)
        ran = run(*(tmp_path / str(watching) if word == "OUT" else word for word in words))
        assert ran.exit_code in (0, 1), ran.output  # two pictures of two steps need not be as they were asked for
        assert (said in ran.stderr) is watching
