"""`outpace flops` at the shell."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from outpace.cli import main


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["flops", *map(str, words)])


def test_a_published_model_in_words_and_in_json() -> None:
    result = run("flux.1")
    assert result.exit_code == 0, result.output
    assert "11.9 billion parameters" in result.stdout and "single_transformer_blocks" in result.stdout
    assert "1/6 of them computed" in result.stdout
    data = json.loads(run("flux.1", "--guidance", "--steps", 10, "--json").stdout)
    assert (data["calls"], data["steps"]) == (2, 10)
    assert data["flops_total"] == 20 * data["flops_per_call"] == 20 * sum(p["flops"] for p in data["pieces"])


def test_a_pocket_brings_its_size_and_its_steps() -> None:
    data = json.loads(run("wan", "--dtype", "float32", "--json").stdout)
    assert (data["height"], data["width"], data["frames"], data["tokens"]) == (32, 32, 9, 5 * 4 * 4)
    assert data["weights_bytes"] == 4 * data["parameters"]
    once = json.loads(run("wan", "--no-guidance", "--json").stdout)
    assert 2 * once["flops_per_step"] == data["flops_per_step"] and once["weights_bytes"] == 2 * data["parameters"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hunyuanvido"], "did you mean 'hunyuanvideo'"),
        (["flux.1", "--height", "1000"], "try 992 or 1008"),
        (["flux.1", "--frames", "9"], "makes pictures"),
        (["flux.1", "--dtype", "int8"], "--dtype"),
        (["flux.1", "--steps", "0"], "--steps"),
        ([], "MODEL"),
    ],
)
def test_slips_end_in_one_line(words: list[str], says: str) -> None:
    result = run(*words)
    assert result.exit_code == 2 and says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.stderr
