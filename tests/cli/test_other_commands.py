"""The smaller commands, and what all of them share."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from outpace.accel import METHODS
from outpace.cli import COMMANDS, main


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def every_command() -> list[list[str]]:
    found = [[]]
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        found.append([name])
        if isinstance(command, click.Group):
            found += [[name, inner] for inner in command.commands]
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_help_has_examples_and_explains_every_option(words: list[str]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0 and "Usage:" in result.stdout
    if len(words) < 2:
        assert "Examples:" in result.stdout and "outpace " in result.stdout.split("Examples:")[1]
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        inner = command.get_command(click.Context(command), word)
        assert inner is not None
        command = inner
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def test_no_words_at_all_show_the_help() -> None:
    result = run()
    assert result.exit_code == 2 and "Usage:" in result.stderr and "generate" in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["genrate"], "did you mean 'generate'"),
        (["pocket", "chek"], "chek"),
        (["--nonsense"], "--nonsense"),
        (["generate"], "PIPELINE"),
        (["methods", "gated"], "gated_taylor"),
        (["pocket", "check", "fluxx"], "did you mean 'flux'"),
        (["pocket", "check", "dit", "--samples", "0"], "--samples"),
        (["pocket", "train", "dit"], "--out"),
        (["pocket", "train", "dit", "--out", "x", "--budget", "nan"], "--budget"),
        (["report", "no-such-folder"], "results.json' does not exist"),
    ],
)
def test_slips_end_in_one_line(words: list[str], says: str) -> None:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.stderr


def test_methods_are_printed_from_the_registries() -> None:
    from outpace.accel import FAMILIES, METHODS, PRESETS, settings_help

    text = run("methods").stdout
    data = json.loads(run("methods", "--json").stdout)
    assert list(data["methods"]) == list(METHODS) and list(data["presets"]) == list(PRESETS)
    assert list(data["families"]) == list(FAMILIES)
    for name, cls in METHODS.items():
        assert name in text
        assert data["methods"][name]["about"]
        for setting, *_ in settings_help(cls):
            assert f"    {setting}=" in text
        assert all(setting["help"] for setting in data["methods"][name]["settings"])


def test_one_method_alone() -> None:
    result = run("methods", "solver")
    assert "solver=auto" in result.stdout and "gated_taylor" not in result.stdout


def test_doctor_reports_what_is_needed_and_what_is_optional() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    data = json.loads(run("doctor", "--json").stdout)
    for name in ("torch", "devices", "triton", "xformers", "torch.compile", "ffmpeg"):
        assert name in result.stdout and data[name]["detail"]
    assert data["torch"]["ok"] and data["torch"]["needed"] and not data["triton"]["needed"]


def test_doctor_says_which_backend_is_taken_and_why_not_the_others() -> None:
    data = json.loads(run("doctor", "--json").stdout)
    for operation in ("dense attention", "sparse attention", "block mass", "routed experts"):
        assert data[operation]["ok"] and data[operation]["others"]
    text = run("doctor").stdout
    for package in ("xformers", "flash-attn"):
        assert f"not {package}: " in text or package in data["dense attention"]["detail"]
    assert "not triton: " in text or "triton" in data["sparse attention"]["detail"]


def test_doctor_survives_a_broken_optional_package(tmp_path: Path) -> None:
    (tmp_path / "triton.py").write_text("raise OSError('libcuda.so.1: cannot open shared object file')\n")
    code = "from outpace.cli.doctor import CHECKS; print(CHECKS['triton']())"
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert "ok=False" in done.stdout and "libcuda" in done.stdout, done.stderr


def test_report_is_written_again(toy_comparison: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(toy_comparison, folder)
    result = run("report", folder)
    assert result.exit_code == 0, result.output
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "gated-200" in page and str(folder / "report.html") in result.stdout
    (folder / "results.json").write_text("{")
    assert run("report", folder).exit_code == 2


def test_pockets_are_listed_from_the_registry() -> None:
    from outpace.pipelines.pocket.recipes import POCKETS

    result = run("pocket", "list")
    assert result.exit_code == 0, result.output
    data = json.loads(run("pocket", "list", "--json").stdout)
    assert list(data) == list(POCKETS)
    for name, row in data.items():
        assert name in result.stdout and row["summary"] in result.stdout and row["example"]


def test_the_module_runs_and_a_closed_pipe_is_no_defect() -> None:
    root = Path(__file__).resolve().parents[2]
    command = f"{sys.executable} -m outpace methods | head -1"
    done = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() in METHODS
    assert "Error" not in done.stderr and "Traceback" not in done.stderr
