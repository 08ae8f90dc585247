"""Files that are whole or not there whenever the process dies, and places that are looked at before the work is done.

Every writer goes through here, so that a full disk, a read-only folder, a device or a name that is too long ends in one
line with the path, and nothing half-written is left.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

_names = itertools.count()

PROBE_BYTES = 65_536
"""What is written and taken away again to see whether a disk has any room at all."""


@contextmanager
def writing(path: str | Path, advice: str = "choose another --out") -> Iterator[None]:
    """What the system says while `path` is written becomes one line that names it. Raises: InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not is_of_the_disk(error):
            raise
        raise InputError(f"cannot write '{path}': {said(error)}; {advice}") from error


_OF_THE_DISK = ("No space left on device", "File too large", "Read-only file system", "Disk quota exceeded",
                "Input/output error", "PytorchStreamWriter failed", "embedded null")  # fmt: skip


def is_of_the_disk(error: BaseException) -> bool:
    """True for what the system says of files and disks, whoever passes it on: safetensors and torch have their own."""
    return isinstance(error, OSError) or any(words in str(error) for words in _OF_THE_DISK)


def said(error: Exception) -> str:
    """What an error of the system says, in one line and without its number."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` if the block ends well and vanishes if it does not.

    Through a link, what it points to is written.

    Raises: InputError where the folder cannot be written to, or something else than a file has that name.
    """
    with writing(path):
        place = Path(os.path.realpath(path))
        check_regular(place)
        draft = place.with_name(f".{place.stem[:60]}-{os.getpid()}-{next(_names)}{place.suffix[:20]}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            draft.touch()
            yield draft
            os.replace(draft, place)
        finally:
            with suppress(OSError):
                draft.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: a reader sees the old file or the new one, never a part. Raises: InputError."""
    with whole_file(path) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """The same for text, as UTF-8. Raises: InputError."""
    write_bytes(path, text.encode())


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to fill; it becomes `folder` if the block ends well and vanishes if it does not.

    Raises: InputError where `folder` is there already and not empty, or cannot be written.
    """
    check_new_folder(folder)
    part = folder.with_name(f".{folder.name[:60]}.{os.getpid()}.part")
    missing = _missing_parents(folder)
    try:
        with writing(folder):
            part.mkdir(parents=True)
            yield part
            if folder.is_dir():
                folder.rmdir()  # empty, or it would have been refused
            part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        _remove_empty(missing)
        raise


def check_writable(*paths: Path) -> None:
    """Fail now rather than after minutes of work. Raises: InputError where one of `paths` could not be written."""
    for path in paths:
        with writing(path):
            _check_name(path)
            check_regular(Path(os.path.realpath(path)))
            missing = _missing_parents(path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.NamedTemporaryFile(dir=path.parent) as probe:
                    probe.write(bytes(PROBE_BYTES))
                    probe.flush()
            finally:
                _remove_empty(missing)


def check_new_folder(folder: Path) -> None:
    """Fail now rather than after the work.

    Raises: InputError where `folder` is a file or holds something, or could not be made.
    """
    with writing(folder):
        if (
            folder.is_symlink()
            or (folder.exists() and not folder.is_dir())
            or (folder.is_dir() and any(folder.iterdir()))
        ):
            raise InputError(f"'{folder}' exists already and is left as it is; choose another --out")
        check_writable(folder / "probe")


def check_regular(path: Path) -> None:
    """Raises: InputError where something that is no ordinary file has the name `path`."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        raise InputError(f"cannot write '{path}': a folder of that name is there; choose another --out")
    if not stat.S_ISREG(mode):
        raise InputError(f"cannot write '{path}': it is a device or a pipe, not a file; choose another --out")


def is_there(path: str | Path) -> bool:
    """True where something has that name; a text that no path could be is nowhere."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL in it, no such home
        return False


def read_bytes(path: str | Path, what: str = "") -> bytes:
    """What is in a file. Raises: InputError, naming it, where it cannot be read."""
    try:
        place = Path(path).expanduser()
        if place.exists() and not place.is_file():
            raise OSError(errno.EINVAL, "it is a directory" if place.is_dir() else "it is a device or a pipe")
        return place.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot read {what + ' ' if what else ''}'{path}': {said(error)}") from error


def _check_name(path: Path) -> None:
    if path.name in ("", ".", ".."):
        raise OSError(errno.EINVAL, "it names no file")
    longest = os.pathconf("/", "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if len(os.fsencode(path.name)) > longest:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _missing_parents(path: Path) -> list[Path]:
    """The folders above `path` that are not there, the deepest first."""
    return [parent for parent in path.parents if not parent.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
