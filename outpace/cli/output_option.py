"""`--out` and `--format` on the command line: which file each picture or clip goes to."""

from __future__ import annotations

import re
from pathlib import Path

from outpace.errors import InputError


def plan_files(out: str, format: str | None, wanted: list[tuple[str, int]], *, clip: bool) -> list[Path]:
    """A path for every (prompt, seed): `out` itself where it ends in a known format, else names inside that folder.

    Args:
        format: "png", "mp4" or "gif"; None takes it from `out`, or the usual one for the kind of media.
        clip: True where the pipeline makes clips.

    Raises: InputError where one file is named for several outputs, formats disagree or cannot hold the media, or the
        place cannot be written to.
    """
    from outpace.pipelines.media import WRITERS, check_writable

    kind = "clip" if clip else "picture"
    suffixes = list(WRITERS[kind])
    path = Path(out).expanduser()
    every = {suffix for writers in WRITERS.values() for suffix in writers}
    named = path.suffix.lower() if path.suffix.lower() in every and not path.is_dir() else None
    suffix = f".{format}" if format else named or suffixes[0]
    if named and suffix != named:
        raise InputError(f"--out '{out}' and --format {format} disagree; leave one of them out")
    if suffix not in suffixes:
        raise InputError(f"this pipeline makes a {kind}, which {suffix} cannot hold; choose {' or '.join(suffixes)}")
    if named and len(wanted) > 1:
        raise InputError(f"--out '{out}' is one file but {len(wanted)} {kind}s are asked for; name a folder")
    if named:
        files = [path]
    else:
        digits = max(3, len(str(len(wanted) - 1)))
        files = [
            path / f"{number:0{digits}d}-{_short(text)}-seed{seed}{suffix}"
            for number, (text, seed) in enumerate(wanted)
        ]
    check_writable(files[0])
    return files


def _short(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:50].strip("-") or "prompt"
