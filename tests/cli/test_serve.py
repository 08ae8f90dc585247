"""`outpace serve` at a shell: what is said before anything is loaded, and a server that starts and ends."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from forked import Forked, commanded, needs_fork

from outpace.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["flix"], "did you mean 'flux'?"),
        (["flux", "--quality", "hihg"], "did you mean 'high'?"),
        (["flux", "--profile", "exact=a.json"], "exact is what the plain pipeline makes"),
        (["flux", "--profile", "none.json"], "cannot read the profile 'none.json'"),
        (["flux", "--api-key", " "], "--api-key is empty"),
        (["flux", "--api-key", "schlüssel"], "letters that no header holds"),
        (["flux", "--host", "203.0.113.9", "--replicas", "0"], "cannot listen at 203.0.113.9:8000"),
    ],
)
def test_slips_are_one_line_and_load_nothing(words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["serve", *words])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ") and said in result.stderr and result.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(main, ["serve", "dit", "--replicas", "0", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2 and "Address already in use; choose another --port" in result.stderr


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("fastapi", "ray") else object())
    result = CliRunner().invoke(main, ["serve", "dit"])
    assert result.exit_code == 2
    assert result.stderr == "Error: serving needs fastapi, ray[serve]: pip install 'outpace[serve]'\n"


@needs_fork
def test_it_starts_answers_and_ends(tmp_path: Path) -> None:
    with Forked(commanded(["serve", "dit", "--replicas", "0", "--port", "0"]), tmp_path) as server:
        end = time.monotonic() + 120
        while not server.out.endswith("\n"):
            assert server.poll() is None and time.monotonic() < end, server.err
            time.sleep(0.02)
        assert server.err == "loading dit ...\n"
        line = server.out
        assert line.startswith("dit is served at http://127.0.0.1:") and line.endswith("Ctrl-C ends it\n")
        address = line.split()[4]
        body = json.dumps({"prompt": "3", "seed": 1, "steps": 4}).encode()
        asked = urllib.request.Request(
            f"{address}/v1/images/generations", data=body, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            told = json.load(answer)
        assert told["quality"] == "medium" and told["data"][0]["outpace"]["recipe"]["seed"] == 1
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0 and server.err == "loading dit ...\n"
