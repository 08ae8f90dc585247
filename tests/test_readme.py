"""What the README and the pages say is what the code does."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from outpace.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name(path: Path) -> str:
    return path.name


def load(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script, ROOT / "docs" / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return load("tables")


def test_generated_tables_are_current(tables: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.rewritten(text) == text, "run `make readme`"
    for path, page in tables.generated_pages().items():
        if path != tables.KERNEL_PAGE:  # tests/test_kernel_table.py has it
            assert path.read_text(encoding="utf-8") == page, f"{path.name}: run `make readme`"
    assert {path.name for path in tables.PAGES.glob("*.md")} == set(tables.full_pages())


def test_an_old_table_would_be_noticed(tables: ModuleType) -> None:
    text = "a\n<!-- x:begin (make readme) -->\nold\n<!-- x:end -->\nb"
    new = tables.rewritten(text, {"x": lambda: "new"})
    assert new == "a\n<!-- x:begin (make readme) -->\nnew\n<!-- x:end -->\nb"
    assert tables.rewritten(new, {"x": lambda: "new"}) == new
    with pytest.raises(SystemExit, match="y:begin"):
        tables.rewritten(text, {"y": lambda: "new"})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_on_the_pages_are_understood(page: Path) -> None:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for line in "\n".join(blocks).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["outpace"]:
            continue
        command: Any = main
        context = click.Context(main)
        rest = words[1:]
        while isinstance(command, click.Group) and rest:
            context = click.Context(command, parent=context)
            _, command, rest = command.resolve_command(context, rest)
            assert command is not None, line
        command.make_context(words[1], rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_on_the_pages_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= known


def test_pages_name_existing_code() -> None:
    import outpace
    from outpace.accel import METHODS, PRESETS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for called in re.findall(r"outpace\.(\w+)\(", text):
        assert called in outpace.__all__
    for preset in re.findall(r'preset="(\w+)"', text):
        assert preset in PRESETS
    for _, method in METHODS.items():
        assert method.__name__ in text, f"README's list of methods lacks {method.__name__}"


def test_the_readme_is_read_in_a_minute() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


FEWER = {
    "compare": "--prompts 1 --steps 6 --methods gated-0.15,steps-4 --timing-prompts 0 --converged-steps 0",
    "tune": "--prompts 22 --steps 6 --budget 1s",
}
"""What makes a command of the README short enough to be run here; it is otherwise run as it stands there."""


def test_every_command_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for line in "\n".join(blocks).splitlines() if line.startswith("outpace ")]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        done = CliRunner().invoke(main, [*words, *shlex.split(FEWER.get(words[0], ""))])
        # A certificate cannot be had of so few prompts; what is asked for was understood and answered all the same.
        assert done.exit_code in ((0, 1) if words[0] in ("tune", "doctor") else (0,)), f"{line}\n{done.output}"


def test_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "speed-up" in capsys.readouterr().out


def test_results_come_from_committed_comparisons(tables: ModuleType, toy_comparison: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"schema": 9}))
    assert "make bench" in tables.results(tmp_path)
    shutil.copy(toy_comparison / "results.json", tmp_path / "toy.json")
    brief, pages = tables.index_page(tmp_path), tables.full_pages(tmp_path)
    assert list(pages) == ["toy.md"] and "[toy](results/toy.md)" in brief
    page = pages["toy.md"]
    for said in ("toy, 20 steps", "4 prompts, a desk, 1 torch thread(s), torch 2.13.0"):
        assert said in brief and said in page
    assert "outpace compare toy" in page
    measured = json.loads((tmp_path / "toy.json").read_text())
    cells = [cell for cell in measured["cells"]["plain"] if cell["quality"]]
    assert cells
    for cell in cells:
        assert f"{cell['quality']['value']:.1f}" in brief and f"{cell['quality']['value']:.1f}" in page


def test_contenders_that_were_measured_again_stand_as_they_were_found_last(
    tables: ModuleType, toy_comparison: Path, tmp_path: Path
) -> None:
    first = json.loads((toy_comparison / "results.json").read_text())
    (tmp_path / "toy.json").write_text(json.dumps(first))
    name = next(c["name"] for c in first["contenders"] if c["kind"] == "gated" and not c["error"])
    batches = {**first, "again": True, "study": {**first["study"], "timing_batch": 8}}
    (tmp_path / "batches.json").write_text(json.dumps(batches), encoding="utf-8")
    again = {**first, "again": True, "made": "2026-12-01 10:00 UTC"}
    again["contenders"] = [{**c, "label": "found last"} for c in first["contenders"] if c["name"] in ("plain", name)]
    again["contenders"].append({**again["contenders"][-1], "name": "new"})
    (tmp_path / "again-toy.json").write_text(json.dumps(again))
    (one,) = tables.comparisons(tmp_path)
    assert [timed["study"]["timing_batch"] for timed in one["in_batches"]] == [8]
    assert [later["made"] for later in one["later"]] == [again["made"]]
    late = {c["name"]: c for c in tables.as_of_late(one)["contenders"]}
    assert list(late) == ["new", *(c["name"] for c in first["contenders"])]
    assert {n for n, c in late.items() if c["label"] == "found last"} == {"plain", name, "new"}
    assert "measured again for the README's table, 2026-12-01 10:00 UTC" in tables.index_page(tmp_path)
    assert "Some were measured on later days than the rest" in tables.results(tmp_path)
    assert list(tables.full_pages(tmp_path)) == ["toy.md"]


def test_the_picture_is_drawn_from_a_comparison(toy_comparison: Path, tmp_path: Path) -> None:
    from PIL import Image

    drawing = load("picture")
    made = drawing.draw(toy_comparison, tmp_path / "picture.png")
    with Image.open(made) as image:
        assert image.width > 400 and image.height > 200
    results = json.loads((toy_comparison / "results.json").read_text())
    assert [c["name"] for c in drawing.chosen(results)] == ["plain", "gated-200", "fewer-192"]


def test_python_on_the_pages_compiles_and_names_what_exists() -> None:
    import outpace

    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            compile(block, str(page), "exec")
            for used in re.findall(r"\boutpace\.([A-Za-z]\w*)\(", block):
                assert hasattr(outpace, used), f"{page.name}: outpace.{used}"
