"""Processes that are copies of this one: they are killed, ranked and stopped like others, and import nothing again.

Most of what a command of a second takes in a process of its own is the import of torch. Where a test needs a real
process, and not a fresh one, it is forked.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied safely on Linux alone")


class Forked:
    """`work` in a copy of this process; nothing of it outlives the test that has it as a context.

    Args:
        work: what the copy does before it ends with 0, or with what it raises: SystemExit's code, else 1.
        folder: where what it prints is kept, as `out.txt` and `err.txt`.
        environment: variables of the copy alone.
        terminal: a file descriptor that its errors go to instead.
    """

    def __init__(
        self,
        work: Callable[[], object],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        terminal: int | None = None,
    ) -> None:
        self.returncode: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        out = os.open(self._out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        err = os.open(self._err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_copied(work, out, err if terminal is None else terminal, environment or {}))
        os.close(out)
        os.close(err)

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds: float = 300) -> int:
        """The exit code. Raises: TimeoutError."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"process {self.pid} did not end in {seconds} s: {self.err[-2000:]}")
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()  # it may not lead a group yet
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def finished(work: Callable[[], object], folder: Path) -> Forked:
    """A copy that did its work, or failed to, and has ended."""
    with Forked(work, folder) as copy:
        copy.wait(600)
    return copy


def commanded(words: Iterable[str]) -> Callable[[], object]:
    """`outpace WORDS`, as work of a copy."""

    def command() -> object:
        from outpace.cli import main

        return main(list(words))

    return command


def scripted(script: Path, *options: str) -> Callable[[], object]:
    """`python SCRIPT OPTIONS`, as work of a copy."""

    def started() -> None:
        sys.argv = [str(script), *options]
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")

    return started


def _copied(work: Callable[[], object], out: int, err: int, environment: Mapping[str, str]) -> int:
    """In the copy: do the work and return the exit code; whatever happens, the tests do not go on in here."""
    code = 1
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", buffering=1, closefd=False) for number in (1, 2))
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        import torch

        torch.set_num_threads(1)  # threads that the copied process had are not in the copy
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    return code
