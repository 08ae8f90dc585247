"""Whatever is wrong ends in one clear line and exit code 2, and leaves nothing half-written behind."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from outpace.cli import main

sys.path.insert(0, str(Path(__file__).parent))
from bad_inputs import Case, Things, every_case

SAMPLED = 25
"""Every so many-th case is in the default run."""

LONGEST = 4000
"""Characters of a line; one that lists the classes that are known is the longest."""


@pytest.fixture(scope="module")
def things(tiny_folder: Path, toy_comparison: Path) -> Things:
    """What the cases are made from."""
    from outpace.pipelines import pocket_path

    return Things(tiny=tiny_folder, texts=pocket_path("flux"), comparison=toy_comparison)


@contextmanager
def largest_file(limit: int | None) -> Iterator[None]:
    """Meanwhile no file of this process may grow beyond `limit` bytes: what a full disk says, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def what_is_wrong(case: Case, folder: Path) -> list[str]:
    """Everything about how a case ends that should not be so."""
    if case.prepare is not None:
        case.prepare(folder)
    before = files_of(folder)
    here = os.getcwd()
    os.chdir(folder)
    try:
        with largest_file(case.limit_bytes), patch("outpace.files.PROBE_BYTES", 1 if case.late else 65_536):
            ran = CliRunner().invoke(main, list(case.words), input="")
    finally:
        os.chdir(here)
    lines = [line for line in ran.stderr.strip().splitlines() if not line.startswith("note:")]
    found = []
    if ran.exit_code != 2:
        found.append(f"exit code {ran.exit_code}: {ran.output[-300:]!r} {ran.exception!r}")
    if len(lines) != 1:
        found.append(f"{len(lines)} lines: {ran.stderr[-300:]!r}")
    elif not lines[0].startswith("Error: ") or len(lines[0]) > LONGEST + 2 * max(map(len, case.words)):
        found.append(f"no clear line: {lines[0][:300]!r} ({len(lines[0])} characters)")
    if "defect" in ran.output or "Traceback" in ran.output:
        found.append(f"called a defect: {ran.output[-300:]!r}")
    if left := files_of(folder) - before:
        found.append(f"left behind: {sorted(left)[:5]}")
    return found


def files_of(folder: Path) -> set[str]:
    """Files below a folder, but for what measurements keep on purpose so that a command goes on."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    return {name for name in found if "cells/" not in name and ".measured/" not in name and "pictures/" not in name}


def run_all(cases: list[Case], tmp_path: Path) -> None:
    wrong = {}
    for number, case in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        if found := what_is_wrong(case, folder):
            wrong[case.name] = found
    told = "\n".join(f"{name}: {'; '.join(found)}" for name, found in wrong.items())
    assert not wrong, f"{len(wrong)} of {len(cases)} bad inputs end badly:\n{told}"


def test_a_sample_of_bad_inputs_ends_in_one_line(things: Things, tmp_path: Path) -> None:
    run_all(every_case(things)[::SAMPLED], tmp_path)


@pytest.mark.slow
def test_every_bad_input_ends_in_one_line(things: Things, tmp_path: Path) -> None:
    cases = every_case(things)
    assert len(cases) >= 600
    run_all(cases, tmp_path)
