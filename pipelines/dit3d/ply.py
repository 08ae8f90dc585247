"""Point clouds to PLY files, which every viewer of shapes opens, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...files import whole_file

_AXES = ("x", "y", "z")


def write_ply(points_N3: Any, path: str | Path) -> Path:
    """Write points as text PLY, whole or not at all. Raises: InputError for what is no cloud, or no place to write."""
    points = np.asarray(points_N3, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InputError(f"points of shape {list(points.shape)}: a cloud is (points, 3) finite numbers")
    header = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
    header += [*(f"property float {axis}" for axis in _AXES), "end_header"]
    rows = [" ".join(f"{value:.9g}" for value in row) for row in points]
    place = Path(path).expanduser()
    with whole_file(place) as draft:
        draft.write_text("\n".join([*header, *rows]) + "\n", encoding="ascii")
    return place


def read_ply(path: str | Path) -> np.ndarray:
    """The points of a text PLY file, (N, 3). Raises: InputError where it is none."""
    try:
        lines = Path(path).expanduser().read_text(encoding="ascii").splitlines()
        end = lines.index("end_header")
        count = next(int(line.split()[2]) for line in lines[:end] if line.startswith("element vertex"))
        names = [line.split()[-1] for line in lines[:end] if line.startswith("property") and " list " not in line]
        columns = [names.index(axis) for axis in _AXES]
        rows = [line.split() for line in lines[end + 1 : end + 1 + count]]
        points = np.array([[float(row[column]) for column in columns] for row in rows], dtype=np.float32)
    except (OSError, ValueError, StopIteration, IndexError) as error:
        raise InputError(f"'{path}' is no text PLY file with points ({error or 'it names no vertices'})") from error
    if lines[:1] != ["ply"] or len(points) != count:
        raise InputError(f"'{path}' is no whole PLY file: {len(points)} of {count} points are there")
    return points.reshape(-1, 3)
