"""`outpace estimate` at the shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outpace.cli import main


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["estimate", *map(str, words)])


def test_a_published_model_in_words_and_in_json() -> None:
    result = run("flux.1", "--device", "h100")
    assert result.exit_code == 0, result.output
    assert "4,096 + 512 of text" in result.stdout and "leave it alone: attention is 21 % of the time" in result.stdout
    data = json.loads(run("flux.2-klein-4b", "--device", "h100", "--steps", 10, "--sparsity", 0.5, "--json").stdout)
    assert (data["tokens"], data["steps"], data["sparsity"], data["worth"]) == (4096, 10, 0.5, False)


def test_a_pocket_brings_its_size_its_prompt_and_its_steps() -> None:
    data = json.loads(run("wan", "--device", "h100", "--json").stdout)
    assert (data["height"], data["width"], data["frames"], data["text_tokens"]) == (32, 32, 9, 8)
    assert data["tokens"] == 5 * 4 * 4 and data["calls"] == 2
    larger = json.loads(run("wan", "--height", 64, "--device", "h100", "--json").stdout)
    assert larger["tokens"] == 2 * data["tokens"]


def test_a_folder(tiny_folder: Path) -> None:
    result = run(tiny_folder, "--height", 16, "--width", 16, "--device", "h100")
    assert result.exit_code == 0 and "64 in self-attention" in result.stdout


def test_what_is_known_is_listed() -> None:
    from outpace.accel.estimate import DEVICES, MODELS

    text, data = run("list").stdout, json.loads(run("list", "--json").stdout)
    assert list(data["models"]) == list(MODELS) and list(data["devices"]) == list(DEVICES)
    for name in (*MODELS, *DEVICES):
        assert name in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hunyuanvido"], "did you mean 'hunyuanvideo'"),
        (["flux.1", "--device", "h20"], "did you mean 'h200'"),
        (["flux.1", "--height", "1000"], "try 992 or 1008"),
        (["flux.1", "--frames", "9"], "makes pictures"),
        (["flux.1", "--sparsity", "1"], "--sparsity"),
        (["flux.1", "--searches", "0"], "--searches"),
        ([], "MODEL"),
    ],
)
def test_slips_end_in_one_line(words: list[str], says: str) -> None:
    result = run(*words)
    assert result.exit_code == 2 and says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
