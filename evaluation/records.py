"""Results on disk as they come: one file a batch, so that an interrupted study loses one batch at most.

DIR/cells/<contender>/0000-0007.json   metrics, checks, blocks and decisions of requests 0 to 7
DIR/cells/<contender>/0000.npz         what a reference made, exact, for comparing others against it
DIR/cells/<contender>/timing.json      paired times
DIR/pictures/<contender>/0000.png      what a contender made, for looking at
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from ..files import said, write_bytes
from .atomic import make_folder, read_json, write_json
from .contender import Request, Result

FRAMES = 12
"""Most frames of a clip that its strip shows."""


def fingerprint(*parts: Any) -> str:
    """A short digest of plain data: equal where a result would come out the same."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def strip(media: np.ndarray) -> np.ndarray:
    """A picture as it is, a clip as some of its frames side by side; uint8 [H, W', 3]."""
    if media.ndim == 4:
        picked = np.linspace(0, len(media) - 1, min(FRAMES, len(media))).round().astype(int)
        media = np.concatenate([media[i] for i in picked], axis=1)
    pixels = np.nan_to_num(media, nan=0.0, posinf=1.0, neginf=0.0)
    pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


class Records:
    """The kept results of one study.

    Args:
        folder: the study's folder; created where missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(Path(folder))

    def cell(self, contender: str) -> Path:
        return make_folder(self.folder / "cells" / contender)

    def picture(self, contender: str, index: int) -> Path:
        return self.folder / "pictures" / contender / f"{index:04d}.png"

    def batch_file(self, contender: str, batch: Sequence[Request]) -> Path:
        return self.cell(contender) / f"{batch[0].index:04d}-{batch[-1].index:04d}.json"

    def load(self, path: Path, mark: str) -> Any | None:
        """What was kept at `path` under fingerprint `mark`; None where nothing is, or it belongs to other settings."""
        kept = read_json(path)
        return kept["data"] if isinstance(kept, dict) and kept.get("fingerprint") == mark else None

    def save(self, path: Path, mark: str, data: Any) -> None:
        write_json(path, {"fingerprint": mark, "data": data})

    def save_picture(self, contender: str, index: int, media: np.ndarray) -> None:
        path = self.picture(contender, index)
        make_folder(path.parent)
        buffer, notes = io.BytesIO(), PngInfo()
        if media.ndim == 4:
            notes.add_text("frames", str(min(FRAMES, len(media))))
        Image.fromarray(strip(media)).save(buffer, format="PNG", compress_level=6, pnginfo=notes)
        write_bytes(path, buffer.getvalue())

    def save_reference(self, contender: str, index: int, result: Result) -> None:
        buffer = io.BytesIO()
        arrays = {"media": result.media} | ({} if result.latents is None else {"latents": result.latents})
        np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
        write_bytes(self.cell(contender) / f"{index:04d}.npz", buffer.getvalue())

    def load_reference(self, contender: str, index: int) -> dict[str, np.ndarray]:
        """{"media", "latents"} of a reference's answer to request `index`.

        Raises: InputError where the file is damaged.
        """
        path = self.cell(contender) / f"{index:04d}.npz"
        try:
            with np.load(path) as kept:
                return {name: kept[name] for name in kept.files}
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"'{path}' is damaged ({said(error)}); remove it, and the same command goes on") from error

    def has_reference(self, contender: str, indices: Sequence[int]) -> bool:
        """False where one is missing, or was cut short: a zip file has its contents listed at its end."""
        return all(zipfile.is_zipfile(self.cell(contender) / f"{i:04d}.npz") for i in indices)
