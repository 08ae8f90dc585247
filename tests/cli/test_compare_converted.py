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
        (["--also", str(tiny_folder)], "its transformer is dense; name a folder of 'outpace convert'"),
        (["--also", str(tmp_path / "none")], "no pipeline"),
        (["--also", str(folder / "moe")], "two folders are called 'moe'"),
    ):
        result = compare(tiny_folder, folder, tmp_path / "out", *words)
        assert result.exit_code == 2 and says in result.stderr, result.output
        assert result.stderr.count("Error:") == 1 and "Traceback" not in result.stderr
