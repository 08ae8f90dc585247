"""`outpace compare --also`: converted pipelines beside the dense one, alone and under a cache, and in the matrix."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from outpace.accel.experts import BlockGroup, Conversion, Experts
from outpace.cli import main
from outpace.cli.contenders.matrix import AXES
from outpace.pipelines.convert import convert_pipeline, write_pipeline
from outpace.pipelines.load import load_pipeline


@pytest.fixture(scope="module")
def folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a converted pipeline, `moe`, and prompts."""
    home = tmp_path_factory.mktemp("also")
    loaded = load_pipeline(str(tiny_folder), device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    conversion = Conversion(experts=Experts(), groups=(BlockGroup(first=2, size=2, active=1),))
    convert_pipeline(loaded, conversion, order="weights")
    write_pipeline(loaded, home / "moe", {"from": str(tiny_folder)})
    (home / "prompts.txt").write_text("1\n2\n")
    return home


def compare(dense: Path, folder: Path, out: Path, *words: str) -> Result:
    told = ["compare", str(dense), "--also", str(folder / "moe"), "--prompts", str(folder / "prompts.txt")]
    told += ["--steps", "4", "--converged-steps", "0", "--timing-prompts", "0", "--out", str(out), *words]
    return CliRunner().invoke(main, told)


def test_dense_mixture_and_mixture_under_a_cache_stand_side_by_side(
    tiny_folder: Path, folder: Path, tmp_path: Path
) -> None:
    result = compare(tiny_folder, folder, tmp_path, "--methods", "none")
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    by_name: dict[str, Any] = {c["name"]: c for c in results["contenders"]}
    dense, moe = by_name["plain"], by_name["moe"]
    assert 0 < moe["blocks"] < dense["blocks"]  # the same blocks, each with fewer FLOPs; one of a group does not run
    cached = [c for name, c in by_name.items() if name.startswith("moe+gated-")]
    assert cached and min(c["blocks"] for c in cached) < moe["blocks"]
    routing = moe["routing"]
    assert len(routing["layers"]) == 7 and [len(row) for row in routing["unequal"]] == [4] * 7
    assert all(abs(sum(row) / len(row) - 1) < 1e-3 for row in routing["load"])
    assert all(value is not None for value in routing["unequal"][0])
    assert dense["routing"] is None and all(c["routing"] is None for c in cached)
    page = (tmp_path / "report.html").read_text()
    assert '<section id="routing">' in page and "layer transformer_blocks.0.ff, expert 1" in page
    assert "7 routers, 74 experts" in page


def test_the_matrix_has_an_axis_of_experts() -> None:
    none: Any = SimpleNamespace(converted=())
    assert "--also FOLDER" in AXES["experts"].choices(none, None)  # pyright: ignore[reportArgumentType]
    some: Any = SimpleNamespace(converted=[SimpleNamespace(name="moe")])
    (choice,) = AXES["experts"].choices(some, None)  # pyright: ignore[reportArgumentType]
    assert choice.name == "moe" and choice.converted is some.converted[0] and choice.methods == ()


def test_a_mixture_is_combined_with_other_parts(tiny_folder: Path, folder: Path, tmp_path: Path) -> None:
    axes = ["--matrix", "--axis", "experts", "--axis", "solver"]
    result = compare(tiny_folder, folder, tmp_path, "--methods", "none", *axes)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    made = {c["name"] for c in results["contenders"] if not c["error"]}
    assert {"matrix-moe", "matrix-solver"} < made and any("moe" in n and "solver" in n for n in made)


def test_slips_are_told_in_one_line(tiny_folder: Path, folder: Path, tmp_path: Path) -> None:
    for words, says in (
        (["--also", str(tmp_path / "none")], "no pipeline"),
        (["--also", str(folder / "moe")], "two are called 'moe'"),
    ):
        result = compare(tiny_folder, folder, tmp_path / "out", *words)
        assert result.exit_code == 2 and says in result.stderr, result.output
        assert result.stderr.count("Error:") == 1 and "Traceback" not in result.stderr


def test_another_checkpoint_is_called_its_own_way_and_not_likened_to_the_plain_picture(
    tiny_folder: Path, folder: Path, tmp_path: Path
) -> None:
    told = ["compare", str(tiny_folder), "--also", f"{tiny_folder}:steps=2,guidance=1", "--methods", "fewer-steps"]
    told += f"--prompts {folder}/prompts.txt --steps 6 --converged-steps 0 --timing-prompts 1".split()
    result = CliRunner().invoke(main, [*told, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    by_name: dict[str, Any] = {c["name"]: c for c in results["contenders"]}
    plain, other = by_name["plain"], by_name[tiny_folder.name]
    assert other["kind"] == "checkpoint" and other["label"] == f"{tiny_folder.name}, 2 steps"
    assert other["steps"] == 2 and other["settings"]["guidance"] == 1.0
    # A third of the steps, and at guidance 1 a call is of half as many rows.
    assert plain["blocks"] / other["blocks"] == pytest.approx(6, rel=0.01)
    assert "psnr" not in other["metrics"]["plain"] and by_name["steps-3"]["metrics"]["plain"]["psnr"]["value"] > 0
    assert other["time"]["wall"]["value"] > 1
    page, table = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert f"{tiny_folder.name}, 2 steps" in page and f"| {tiny_folder.name}, 2 steps |" in table


def test_a_call_counts_its_attention_for_its_blocks_to_be_worth_what_they_compute(tiny_folder: Path) -> None:
    from outpace.accel.estimate import flops
    from outpace.accel.estimate.parts import SELF
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Request
    from outpace.pipelines.load import call_arguments, load_pipeline

    loaded = load_pipeline(str(tiny_folder), device="cpu", progress=False)
    bench = Bench(
        loaded=loaded,
        arguments=call_arguments(loaded, steps=3, guidance=1.0),
        yardstick=Request(index=0, prompt=1, seed=0),
    )
    told = flops(loaded.pipe)
    assert bench.call_flops() == told.flops_per_call
    assert sum(piece.flops for piece in told.pieces if piece.part == SELF) > 0


@pytest.mark.parametrize(
    ("also", "says"),
    [
        ("{dense}:step=4", "no 'step'; did you mean 'steps'?"),
        ("{dense}:steps=none", "steps=none is no number of steps"),
        ("{dense}:guidance=-2", "guidance=-2 is no number of guidance"),
        ("flux:steps=4", "prompts of one say nothing to the other"),
        ("{moe}:steps=4", "a converted pipeline is called as"),
        ("{dense}/no-such.safetensors", "no-such.safetensors"),
    ],
)
def test_what_cannot_take_part_is_refused_in_one_line(
    tiny_folder: Path, folder: Path, tmp_path: Path, also: str, says: str
) -> None:
    place = also.format(dense=tiny_folder, moe=folder / "moe")
    told = ["compare", str(tiny_folder), "--also", place, "--prompts", str(folder / "prompts.txt"), "--steps", "4"]
    result = CliRunner().invoke(main, [*told, "--out", str(tmp_path)])
    assert result.exit_code == 2 and says in result.output, result.output
    assert not (tmp_path / "results.json").exists()
