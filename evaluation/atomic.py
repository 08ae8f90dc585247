"""JSON and folders of a study, whole or not there whenever the process dies."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import said, write_text


def make_folder(folder: Path) -> Path:
    """Create `folder` with its parents. Raises: InputError where it cannot be created or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot create the folder '{folder}': {said(error)}; choose another with --out") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"the folder '{folder}' cannot be written to; choose another with --out")
    return folder


def write_json(path: Path, data: Any, *, indent: int | None = None) -> None:
    """JSON that any reader takes: NaN and infinity are refused, not written; numpy's scalars become plain ones."""
    text = json.dumps(data, indent=indent, allow_nan=False, ensure_ascii=False, default=plain_scalar)
    write_text(path, text + "\n")


def plain_scalar(value: Any) -> Any:
    """A numpy scalar as Python's own. Raises: TypeError for anything else, as JSON does."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not fit into JSON")


def read_json(path: Path) -> Any | None:
    """The parsed file, or None where it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
