"""`outpace convert` at the shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from outpace.accel.experts import (
    Conversion,
    Tried,
    choose_layout,
    find_noise_experts,
    find_scheduled,
    load_transformer,
    weight_importance,
)
from outpace.accel.experts.tried import LAYOUTS
from outpace.cli import main
from outpace.pipelines.load import load_pipeline


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, words)])


def test_a_folder_is_converted_and_can_be_used(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("1\n2\n")
    out = tmp_path / "moe"
    words = ("--prompts", tmp_path / "prompts.txt", "--steps", 2, "--layout", "1S12E2A", "--group", "2-3:1")
    result = run(tiny_folder, *words, "--out", out)
    assert result.exit_code == 0, result.output
    assert (
        "6 feed-forward layers converted to 1S12E2A, 0 blocks dropped" in result.output
        and "Not distilled yet" in result.output
    )
    made = CliRunner().invoke(
        main, ["generate", str(out), "--prompt", "3", "--steps", "2", "--plain", "--out", str(tmp_path / "x.png")]
    )
    assert made.exit_code == 0, made.output
    assert (tmp_path / "x.png").is_file()


def test_weights_by_noise_level_are_made_from_borders_that_calls_tell(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("1\n2\n")
    words = ("--layout", "0S8E3A2W", "--order", "weights", "--out", tmp_path / "levels")
    result = run(tiny_folder, "--prompts", tmp_path / "prompts.txt", "--steps", 2, *words)
    assert result.exit_code == 0, result.output
    made = load_transformer(tmp_path / "levels")
    borders, layers = made.config["conversion"]["borders"], find_noise_experts(made)
    assert len(borders) == 1 and 0 < borders[0] < 1000
    assert all(len(layer.changes) == 2 and layer.noise.borders == tuple(borders) for layer in layers.values())
    pruned = weight_importance(load_pipeline(str(tiny_folder), device="cpu", progress=False).pipe.transformer)
    for path, layer in layers.items():
        best = pruned[path].argsort(descending=True, stable=True)[: layer.units(0)]
        assert all(torch.equal(order[: layer.units(0)], best) for order in layer.order)


@pytest.mark.parametrize("fitted", [False, True])
def test_blocks_are_left_out_by_noise_level_with_stand_ins_where_asked(
    tiny_folder: Path, tmp_path: Path, fitted: bool
) -> None:
    (tmp_path / "prompts.txt").write_text("1\n2\n")
    words = ["--to", "depth", "--drop", 1, "--levels", 2, "--prompts", tmp_path / "prompts.txt", "--steps", 4]
    result = run(tiny_folder, *words, *(["--stand-ins"] if fitted else []), "--out", tmp_path / "shallow")
    assert result.exit_code == 0 and "other ones at each noise level" in result.output, result.output
    made = load_transformer(tmp_path / "shallow")
    held = made.config["conversion"]
    assert len(held["left_out"]) == 2 and len(held["borders"]) == 1 and sum(map(len, held["left_out"])) >= 2
    stand_ins = [one for block, _ in find_scheduled(made) for one in block.stand_ins.values()]  # pyright: ignore
    assert bool(stand_ins) == fitted == held.get("stand_ins", False)
    assert all(bool(weight.any()) for one in stand_ins for weight in one.parameters())


def test_counting_needs_no_weights() -> None:
    result = run("dit", "--layout", "1S12E2A", "--count")
    assert result.exit_code == 0, result.output
    assert "0.375 of it" in result.output and "24 feed-forward layers" in result.output
    assert "layout 1S12E2A" in result.output and "tried here with random weights" in result.output
    smaller = ("--layout", "1S12E2A", "--modulation", "low_rank:8")
    data = json.loads(run("dit", *smaller, "--count", "--json").stdout)
    assert data["active_fraction"] == 0.375 and data["parameters"] < data["dense_parameters"]
    data = json.loads(run("dit", "--count", "--json").stdout)
    assert data["active_fraction"] == 0.375 and data["active_parameters"] < data["dense_parameters"]
    assert data["layout"] in LAYOUTS and data["seconds"] > 0 and data["dense_seconds"] > 0


def test_the_layout_that_runs_fastest_is_taken_unless_tokens_have_to_choose(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"1S12E2A": 2.0, "0S16E6A4W": 0.9}

    def tried(_: object, conversion: Conversion, **__: object) -> Tried:
        assert conversion.experts is not None
        return Tried(dense_seconds=1.0, seconds=seconds[conversion.experts.layout])

    monkeypatch.setattr("outpace.accel.experts.tried.try_call", tried)
    assert run("dit", "--count").output.count("layout 0S16E6A4W") == 1
    assert run("dit", "--count", "--order", "weights").output.count("layout 1S12E2A") == 1
    seconds["1S12E2A"] = 0.5
    assert choose_layout("dit") == "1S12E2A", "where routing pays it is the paper's"
    seconds["1S12E2A"] = 2.0
    (tmp_path / "prompts.txt").write_text("1\n2\n")
    result = run(tiny_folder, "--prompts", tmp_path / "prompts.txt", "--steps", 4, "--out", tmp_path / "fast")
    assert result.exit_code == 0 and "converted to 0S16E6A4W" in result.output, result.output
    card = json.loads((tmp_path / "fast" / "card.json").read_text())
    assert len(card["conversion"]["borders"]) == 3, "the card says what was measured"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dit"], "give --out DIR to convert, or --count"),
        (
            ["dit", "--to", "int8", "--layout", "1S12E2A", "--count"],
            "--layout belongs to --to moe, and this is --to int8",
        ),
        (["dit", "--keep", "0.5", "--count"], "--keep belongs to --to width, and this is --to moe"),
        (["dit", "--to", "width", "--drop", "2", "--count"], "--drop belongs to --to depth"),
        (["dit", "--to", "width", "--levels", "2", "--count"], "--levels belongs to --to depth"),
        (["dit", "--stand-ins", "--count"], "--stand-ins belongs to --to depth"),
        (["dit", "--to", "depth", "--drop", "2", "--stand-ins", "--count"], "noise levels leave out: --levels N"),
        (["dit", "--products", "--count"], "--products belongs to --to int8"),
        (["dit", "--to", "depth", "--count"], "--drop N"),
        (["dit", "--count", "--out", "x"], "and one of them"),
        (["dit", "--layout", "12E", "--count"], "'12E' is no layout; write 1S12E2A"),
        (["dit", "--layout", "1S12E13A", "--count"], "13 of 12 experts cannot be active"),
        (["dit", "--layout", "1S11E2A", "--count"], "hidden units do not divide"),
        (["dit", "--group", "3:1", "--count"], "write 4-7:2"),
        (["dit", "--group", "20-23:1", "--count"], "has to end before the last of 24 blocks"),
        (["dit", "--modulation", "low_rank:x", "--count"], "write low_rank:48 or shared"),
        (["dit", "--modulation", "thin", "--count"], "kind must be one of low_rank, shared"),
        (["dit", "--to", "dense", "--count"], "--to"),
        (["ditt", "--count"], "did you mean 'dit'"),
        (["dit", "--order", "size", "--count"], "--order"),
    ],
)
def test_slips_end_in_one_line(words: list[str], says: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert says in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_folder_that_holds_something_is_left_alone(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")
    result = run(tiny_folder, "--order", "weights", "--out", tmp_path)
    assert result.exit_code == 2 and "exists already and is left as it is" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_pipeline_without_prompts_of_its_own_asks_for_some(tiny_folder: Path, tmp_path: Path) -> None:
    result = run(tiny_folder, "--out", tmp_path / "moe")
    assert result.exit_code == 2 and "--prompts FILE" in result.stderr and "--order weights" in result.stderr
    assert not (tmp_path / "moe").exists()
