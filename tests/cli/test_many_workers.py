"""Work shared between processes, and work that was killed: the same numbers and the same files as in one go."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from forked import Forked, commanded, needs_fork

from outpace.cli import main

GROUP = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
GROUP += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
PATIENCE = 600
"""Seconds for commands that take a few: start-up is most of it, and machines of continuous integration are busy."""

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def compare_words(out: Path) -> list[str]:
    """Four contenders with four batches each, and one that fails: diffusers has no cache for this transformer."""
    words = ["compare", "dit", "--prompts", "4", "--steps", "4", "--converged-steps", "6"]
    words += [
        "--batch",
        "1",
        "--methods",
        "interval-2,steps-2,magcache-0.06",
        "--timing-prompts",
        "0",
        "--device",
        "cpu",
    ]
    return [*words, "--out", str(out)]


def generate_words(folder: Path, prompts: Path, out: Path) -> list[str]:
    words = ["generate", str(folder), "--prompts", str(prompts), "--steps", "6", "--seed", "3-8", "--batch", "2"]
    return [*words, "--method", "interval_taylor:warmup=1,cooldown=0", "--device", "cpu", "--out", str(out)]


def start(command: list[str], root: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(command: list[str], root: Path) -> str:
    """What a command that succeeds prints."""
    process = start(command, root)
    return ended_well(process)


def ended_well(process: subprocess.Popen[str]) -> str:
    """What `process` printed, once it has ended without an error; nothing of it outlives the test."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        end_session(process)
    assert process.returncode == 0, err
    return out


def end_session(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_until(happened: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """What `happened` returns once it is true; fails where the process ends before."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := happened():
            return found
        if process.poll() is not None:
            raise AssertionError(f"ended before anything was to be killed: {process.communicate()}")
        time.sleep(0.005)
    end_session(process)
    raise AssertionError("waited in vain")


def cells(out: Path) -> list[Path]:
    return sorted((out / "cells").rglob("[0-9]*.json"))


def results(out: Path) -> dict[str, Any]:
    """Everything in results.json that does not tell when, how and in which state of the machine it was made."""
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key not in ("made", "command", "environment")}


def samples(out: Path) -> dict[str, Any]:
    """Every sample's numbers, by file."""
    return {str(p.relative_to(out)): json.loads(p.read_text(encoding="utf-8")) for p in cells(out)}


def children(process: subprocess.Popen[str], marker: str) -> list[int]:
    """Processes of `process`'s session whose command line or title has `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != process.pid:
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if marker in words and descends(int(entry.name), process.pid):
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended while it was looked at
    return found


def descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


@pytest.fixture(scope="module")
def one_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison as one process makes it, undisturbed."""
    folder = tmp_path_factory.mktemp("one")
    with Forked(commanded(compare_words(folder / "go")), folder / "told") as process:
        assert process.wait(PATIENCE) == 0, process.err
    return folder / "go"


def assert_same(out: Path, one_go: Path) -> None:
    assert results(out) == results(one_go)
    assert samples(out) == samples(one_go)
    assert len(cells(out)) == 4 * 4


@needs_fork
def test_killed_in_the_middle_and_begun_again_it_gives_the_numbers_of_one_go(one_go: Path, tmp_path: Path) -> None:
    command = commanded(compare_words(tmp_path / "out"))
    with Forked(command, tmp_path / "first") as process:
        while len(cells(tmp_path / "out")) < 6:
            assert process.poll() is None, f"ended before it was to be killed: {process.err}"
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in cells(tmp_path / "out")}
    assert 6 <= len(kept) < 16 and not (tmp_path / "out" / "results.json").exists()
    with Forked(command, tmp_path / "second") as process:
        assert process.wait(PATIENCE) == 0, process.err
    assert_same(tmp_path / "out", one_go)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 6, 11])
def test_kill_9_and_the_same_command_give_the_numbers_of_one_go(
    after: int, one_go: Path, root: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "outpace", *compare_words(tmp_path / "out")]
    process = start(command, root)
    wait_until(lambda: len(cells(tmp_path / "out")) >= after, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in cells(tmp_path / "out")}
    assert after <= len(kept) < 16 and not (tmp_path / "out" / "results.json").exists()
    finish(command, root)
    assert_same(tmp_path / "out", one_go)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_two_processes_one_killed_midway_and_the_same_command_again(one_go: Path, root: Path, tmp_path: Path) -> None:
    command = [*GROUP, "-m", "outpace", *compare_words(tmp_path / "out")]
    process = start(command, root)
    wait_until(lambda: len(cells(tmp_path / "out")) >= 5, process)
    ranks = children(process, "outpace compare dit")
    assert len(ranks) >= 2, "two processes share the work"
    os.kill(max(ranks), signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0 and not (tmp_path / "out" / "results.json").exists()
    assert 5 <= len(cells(tmp_path / "out")) < 16
    printed = finish(command, root)
    assert printed.count("Report:") == 1, "one process tells"
    assert_same(tmp_path / "out", one_go)


@needs_ray
@pytest.mark.slow
def test_two_workers_of_ray_one_killed_midway(one_go: Path, root: Path, tmp_path: Path) -> None:
    process = start([sys.executable, "-m", "outpace", *compare_words(tmp_path / "out"), "--workers", "2"], root)
    wait_until(lambda: len(cells(tmp_path / "out")) >= 3, process)
    workers = children(process, "ray::Worker")
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    out = ended_well(process)
    assert out.count("Report:") == 1 and "died" not in out
    assert_same(tmp_path / "out", one_go)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("".join(f"{number}\n" for number in range(6)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tiny_folder: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures as one process makes them."""
    out = tmp_path_factory.mktemp("made") / "pictures"
    ran = CliRunner().invoke(main, generate_words(tiny_folder, prompts, out))
    assert ran.exit_code == 0, ran.output
    return out


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@needs_fork
def test_two_ranks_make_the_pictures_of_one(tiny_folder: Path, prompts: Path, tmp_path: Path) -> None:
    """As `accelerate launch` tells processes that they are two; all are forked, since sums depend on threads."""
    with Forked(commanded(generate_words(tiny_folder, prompts, tmp_path / "one")), tmp_path / "alone") as alone:
        assert alone.wait(PATIENCE) == 0, alone.err
    words = [*generate_words(tiny_folder, prompts, tmp_path / "p"), "--json"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [
        Forked(commanded(words), tmp_path / f"rank{rank}", environment={**shared, "RANK": f"{rank}", "LOCAL_RANK": "0"})
        for rank in range(2)
    ]
    with ranks[0] as first, ranks[1] as second:
        assert [first.wait(PATIENCE), second.wait(PATIENCE)] == [0, 0], first.err + second.err
        told = json.loads(first.out)
        assert second.out == "", "one process tells"
    assert len(told["files"]) == 6 and told["trace"]["totals"]["samples"] == 6 * 6
    assert files_of(tmp_path / "p") == files_of(tmp_path / "one")


@pytest.mark.slow
def test_two_processes_make_the_pictures_of_one(
    made: Path, tiny_folder: Path, prompts: Path, root: Path, tmp_path: Path
) -> None:
    printed = finish([*GROUP, "-m", "outpace", *generate_words(tiny_folder, prompts, tmp_path / "p"), "--json"], root)
    told = json.loads(printed)
    assert len(told["files"]) == 6 and told["trace"]["totals"]["samples"] == 6 * 6
    assert files_of(tmp_path / "p") == files_of(made)


@needs_ray
@pytest.mark.slow
def test_workers_of_ray_make_the_pictures_that_are_missing(
    made: Path, tiny_folder: Path, prompts: Path, root: Path, tmp_path: Path
) -> None:
    whole = files_of(made)
    (tmp_path / "p").mkdir()
    for name in sorted(whole)[:3]:
        (tmp_path / "p" / name).write_bytes(whole[name])
    words = generate_words(tiny_folder, prompts, tmp_path / "p")
    printed = finish([sys.executable, "-m", "outpace", *words, "--workers", "2"], root)
    assert "by all workers" in printed and "3 of them there already" in printed
    assert files_of(tmp_path / "p") == whole


def test_generate_goes_on_where_it_stopped(
    made: Path, tiny_folder: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpace.pipelines import load

    whole, out = files_of(made), tmp_path / "p"
    words = generate_words(tiny_folder, prompts, out)
    assert CliRunner().invoke(main, words).exit_code == 0
    names = sorted(whole)
    (out / names[2]).unlink()
    ran = CliRunner().invoke(main, words)
    assert ran.exit_code == 0 and "5 of them there already" in ran.output and files_of(out) == whole

    monkeypatch.setattr(load, "run_pipeline", lambda *_: pytest.fail("nothing is left to make"))
    again = CliRunner().invoke(main, [*words, "--json"])
    assert again.exit_code == 0, again.output
    assert [entry["kept"] for entry in json.loads(again.stdout)["files"]] == [True] * 6


def test_a_file_made_otherwise_is_an_error_before_anything_runs(
    made: Path, tiny_folder: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p"
    words = generate_words(tiny_folder, prompts, out)
    out.mkdir()
    name = sorted(files_of(made))[4]
    (out / name).write_bytes((made / name).read_bytes())
    other = CliRunner().invoke(main, [*words, "--enlarge", "2"])
    assert other.exit_code == 2 and "made otherwise (command)" in other.stderr and "--overwrite" in other.stderr
    assert list(files_of(out)) == [name]
    (out / name).write_bytes(b"somebody's own")
    foreign = CliRunner().invoke(main, words)
    assert foreign.exit_code == 2 and "no recipe" in foreign.stderr
    forced = CliRunner().invoke(main, [*words, "--overwrite"])
    assert forced.exit_code == 0 and files_of(out) == files_of(made)


@pytest.mark.parametrize(
    ("words", "surroundings", "says"),
    [
        (["--prompt", "3", "--workers", "0"], {}, "--workers"),
        (["--prompt", "3", "--workers", "2"], {"RANK": "0", "WORLD_SIZE": "2"}, "share the work twice"),
        (["--prompts", "-"], {"RANK": "0", "WORLD_SIZE": "2"}, "one standard input"),
    ],
)
def test_work_that_cannot_be_shared_is_refused_in_one_line(
    tiny_folder: Path,
    tmp_path: Path,
    words: list[str],
    surroundings: dict[str, str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    ran = CliRunner().invoke(main, ["generate", str(tiny_folder), *words, "--out", str(tmp_path / "p")], input="3\n")
    assert ran.exit_code == 2 and says in ran.stderr and len(ran.stderr.strip().splitlines()) == 1


def test_without_ray_it_is_said_how_to_get_it(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    words = ["generate", str(tiny_folder), "--prompt", "3", "--workers", "2", "--out", str(tmp_path / "p")]
    ran = CliRunner().invoke(main, words)
    assert ran.exit_code == 2 and "pip install 'outpace[ray]'" in ran.stderr
