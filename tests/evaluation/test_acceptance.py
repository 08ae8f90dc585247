"""Bands: what keeps them, what misses them, who must, and the exit status of the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from outpace.cli import main
from outpace.errors import ConfigError, InputError
from outpace.evaluation.acceptance import accept, read_bands
from outpace.evaluation.prompt_sets import PROMPT_SETS


def entry(name: str, kind: str, psnr: tuple[float, float], speed: float, obeyed: float = 1.0, **more: Any) -> dict:
    mean, worst = psnr
    return {
        "name": name,
        "kind": kind,
        "error": None,
        "metrics": {"plain": {"psnr": {"value": mean, "worst": worst}}},
        "checks": {"colour": {"value": obeyed}, "shape": {"value": obeyed}},
        "speedup": {"value": speed},
        "time": {"wall": {"value": speed * 0.9}},
        **more,
    }


RESULTS = {
    "study": {"plain": "plain"},
    "contenders": [
        {**entry("plain", "plain", (0, 0), 1.0), "metrics": {}},
        entry("careful", "gated", (50, 40), 2.0),
        entry("fast", "gated", (35, 25), 4.0, 0.9),
        entry("rival", "interval", (60, 55), 5.0),
        entry("broken", "gated", (0, 0), 0.0, error="no", metrics={}),
    ],
}


@pytest.mark.parametrize(
    ("held", "ok", "fastest"),
    [
        ({"worst": {"psnr": 40}}, True, "careful"),
        ({"worst": {"psnr": 40.1}}, False, None),
        ({"worst": {"psnr": 25}}, True, "fast"),
        ({"mean": {"psnr": 50}, "speed": {"blocks": 2, "time": 1.8}}, True, "careful"),
        ({"mean": {"psnr": 50}, "speed": {"time": 1.81}}, False, None),
        ({"adherence": {"loss": 0.05}, "mean": {"psnr": 30}}, True, "careful"),
        ({"adherence": {"loss": 0.1001}}, True, "fast"),
        ({"mean": {"lpips": 0.5}}, False, None),
        ({"contenders": ["careful", "fast"], "worst": {"psnr": 25}}, True, "fast"),
        ({"contenders": ["careful", "fast"], "worst": {"psnr": 30}}, False, "careful"),
        ({"contenders": ["rival"], "worst": {"psnr": 55}}, True, "rival"),
        ({"contenders": ["broken"], "worst": {"psnr": 1}}, False, None),
    ],
)
def test_bands_are_kept_or_not(held: dict[str, Any], ok: bool, fastest: str | None) -> None:
    found = accept(RESULTS, read_bands(held))
    assert (found.ok, found.fastest) == (ok, fastest)
    said = "\n".join(found.lines())
    assert said.startswith("Accepted" if ok else "Refused")
    assert json.loads(json.dumps(found.to_dict()))["accepted"] is ok


def test_what_was_missed_is_said() -> None:
    bands = read_bands({"contenders": ["fast"], "worst": {"psnr": 30}, "mean": {"lpips": 0.1, "psnr": 30}})
    assert accept(RESULTS, bands).lines() == [
        "Refused",
        "  fast: PSNR of the worst request: 25 (at least 30, missed)",
        "  fast: LPIPS in the mean: not measured here (at most 0.1, missed)",
    ]


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({}, "nothing is asked for"),
        ({"worse": {"psnr": 1}}, "no 'worse'; did you mean 'worst'"),
        ({"worst": {"pnsr": 1}}, "did you mean 'psnr'"),
        ({"worst": {"fid": 1}}, "knows no 'fid'"),
        ({"worst": {"psnr": "high"}}, "must be a number"),
        ({"worst": {"psnr": float("inf")}}, "must be a number"),
        ({"speed": {"flops": 2}}, "knows no 'flops'"),
        ({"worst": 30}, "holds names and numbers"),
        ({"contenders": "gated", "worst": {"psnr": 30}}, "is a list of names"),
    ],
)
def test_a_slip_in_the_file_is_refused(held: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_bands(held)
    with pytest.raises(InputError, match="took no part"):
        accept(RESULTS, read_bands({"contenders": ["gate"], "worst": {"psnr": 30}}))


def test_the_command_exits_by_the_bands(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("1\n2\n", encoding="utf-8")
    words = ["compare", str(tiny_folder), "--prompts", str(tmp_path / "prompts.txt"), "--methods", "gated-0.1"]
    words += ["--steps", "6", "--timing-prompts", "0", "--converged-steps", "0", "--out", str(tmp_path / "out")]
    for psnr, code, word in (("-100", 0, "Accepted"), ("1000", 1, "Refused")):
        (tmp_path / "bands.toml").write_text(f"[worst]\npsnr = {psnr}\n", encoding="utf-8")
        done = CliRunner().invoke(main, [*words, "--accept", str(tmp_path / "bands.toml")])
        assert done.exit_code == code and word in done.stdout and "Report:" in done.stdout, done.output
    done = CliRunner().invoke(main, [*words, "--accept", str(tmp_path / "bands.toml"), "--json"])
    assert done.exit_code == 1 and json.loads(done.stdout)["acceptance"]["accepted"] is False
    (tmp_path / "bands.toml").write_text("[worst\n", encoding="utf-8")
    done = CliRunner().invoke(main, [*words, "--accept", str(tmp_path / "bands.toml")])
    assert done.exit_code == 2 and "are no TOML" in done.stderr and done.stderr.count("\n") == 1
    done = CliRunner().invoke(main, [*words, "--accept", str(tmp_path / "none.toml")])
    assert done.exit_code == 2 and "cannot read the bands" in done.stderr


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_a_published_prompt_set_is_named_with_where_it_is(name: str) -> None:
    done = CliRunner().invoke(main, ["compare", "dit", "--prompts", name])
    assert done.exit_code == 2 and PROMPT_SETS[name].address in done.stderr and done.stderr.count("\n") == 1
