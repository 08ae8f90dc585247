"""`--out` and `--format` on the command line: which file each picture or clip goes to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from outpace.errors import InputError

OTHERS = (
    ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".npy", ".npz", ".pt", ".mov", ".avi", ".mkv", ".webm",
    ".ply", ".obj", ".html", ".json",
)  # fmt: skip
"""Ends of names that are no folder's, whatever a person meant by them."""


class Place(click.ParamType):
    """A path that something can be written to, by its words alone; whether it is free is looked at later."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip():
            self.fail("it is empty; name a file or a folder.", param, ctx)
        if "\0" in text:
            self.fail("a path holds no NUL.", param, ctx)
        return text


PLACE = Place()


def check_out(out: str, count: int) -> None:
    """What can be said before anything is loaded.

    Raises: InputError where one file is named for several outputs, or the place cannot be written to.
    """
    from outpace.files import check_writable

    path = Path(out).expanduser()
    if path.suffix.lower() in OTHERS and not path.is_dir():
        raise InputError(
            f"--out '{out}' cannot be a {path.suffix} file; name a .png, .mp4 or .gif, or a folder for what is made"
        )
    if _is_file_name(path) and count > 1:
        raise InputError(f"--out '{out}' is one file but {count} are asked for; name a folder")
    check_writable(path if _is_file_name(path) else path / "picture.png")


def plan_files(out: str, format: str | None, wanted: list[tuple[str, int]], *, clip: bool) -> list[Path]:
    """A path for every (prompt, seed): `out` itself where it ends in a known format, else names inside that folder.

    Args:
        format: "png", "mp4" or "gif"; None takes it from `out`, or the usual one for the kind of media.
        clip: True where the pipeline makes clips.

    Raises: InputError where formats disagree or cannot hold the media.
    """
    from outpace.pipelines.media import WRITERS

    kind = "clip" if clip else "picture"
    suffixes = list(WRITERS[kind])
    path = Path(out).expanduser()
    named = path.suffix.lower() if _is_file_name(path) else None
    suffix = f".{format}" if format else named or suffixes[0]
    if named and suffix != named:
        raise InputError(f"--out '{out}' and --format {format} disagree; leave one of them out")
    if suffix not in suffixes:
        raise InputError(f"this pipeline makes a {kind}, which {suffix} cannot hold; choose {' or '.join(suffixes)}")
    if named:
        return [path]
    digits = max(3, len(str(len(wanted) - 1)))
    return [
        path / f"{number:0{digits}d}-{_short(text)}-seed{seed}{suffix}" for number, (text, seed) in enumerate(wanted)
    ]


def _is_file_name(path: Path) -> bool:
    from outpace.pipelines.media import WRITERS

    return not path.is_dir() and any(path.suffix.lower() in writers for writers in WRITERS.values())


def _short(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:50].strip("-") or "prompt"
