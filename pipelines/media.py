"""Pictures and clips to files, whole or not at all, with the recipe that made them inside.

Legend: media is a float array in 0..1, HWC for a picture, THWC for a clip.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependencyError

RECIPE = "outpace"
"""Name of the PNG text chunk that holds the recipe."""

Writer = Callable[[np.ndarray, Path, str, float], None]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` if the block ends well and vanishes if it does not.

    Raises: InputError where the folder cannot be written to.
    """
    if path.is_dir():
        raise InputError(f"cannot write '{path}': a folder of that name is there; choose another --out")
    draft = path.with_name(f".{path.stem[:100]}-{os.getpid()}-{threading.get_ident()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch()
        yield draft
        os.replace(draft, path)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}; choose another --out") from error
    finally:
        with suppress(OSError):
            draft.unlink()


def check_writable(path: Path) -> None:
    """Fail now rather than after minutes of denoising. Raises: InputError where `path` could not be written."""
    folder = path.parent
    made: list[Path] = []
    try:
        while not folder.exists():
            made.append(folder)
            folder = folder.parent
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}; choose another --out") from error
    finally:
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def enlarge(media: np.ndarray, times: int) -> np.ndarray:
    """Every pixel as a square of `times` x `times`, so that a small picture can be looked at."""
    return media.repeat(times, axis=-3).repeat(times, axis=-2)


def save_media(media: np.ndarray, path: Path, recipe: dict[str, Any], *, frames_per_second: float = 8.0) -> Path:
    """Write a picture or a clip with its recipe inside; the suffix of `path` chooses the format.

    Args:
        media: HWC for .png, THWC for .mp4 and .gif; floats in 0..1.
        recipe: what made it, as plain data; `read_recipe` gives it back.

    Raises:
        InputError: where the suffix and the media do not go together, a value is not a number, or nothing can be
            written there.
        MissingDependencyError: where .mp4 is wanted and there is no ffmpeg.
    """
    kind = "clip" if media.ndim == 4 else "picture"
    writers = WRITERS[kind]
    if path.suffix.lower() not in writers:
        raise InputError(f"cannot save a {kind} as '{path.name}'; its name must end in {' or '.join(writers)}")
    if not np.isfinite(media).all():
        raise InputError(
            f"the pipeline made a {kind} with values that are not numbers, so '{path}' was not written; "
            "half precision may have overflowed: try --dtype float32"
        )
    pixels = (media.clip(0.0, 1.0) * 255).round().astype(np.uint8)
    with whole_file(path) as draft:
        writers[path.suffix.lower()](pixels, draft, json.dumps(recipe), frames_per_second)
    return path


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe inside a file that `save_media` wrote. Raises: InputError where there is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.suffix.lower() == ".mp4":
            text = _mp4_comment(path)
        else:
            with Image.open(path) as image:
                text = image.info.get(RECIPE) or image.info.get("comment")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"cannot read '{path}': {error}") from error
    try:
        return json.loads(text if isinstance(text, str) else (text or b"").decode())
    except ValueError as error:
        raise InputError(f"'{path}' carries no recipe; only files written by outpace do") from error


def _png(pixels: np.ndarray, draft: Path, recipe: str, _: float) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_itxt(RECIPE, recipe)
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(draft, format="PNG", pnginfo=text)


def _gif(pixels: np.ndarray, draft: Path, recipe: str, frames_per_second: float) -> None:
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in pixels]
    milliseconds = round(1000 / frames_per_second)
    first.save(
        draft, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0, comment=recipe.encode()
    )


def _mp4(pixels: np.ndarray, draft: Path, recipe: str, frames_per_second: float) -> None:
    import imageio_ffmpeg

    # The usual 4:2:0 colour of H.264 wants even sizes; an odd one repeats its last row or column.
    pixels = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2), (0, 0)), mode="edge")
    height, width = pixels.shape[1:3]
    try:
        writer = imageio_ffmpeg.write_frames(
            str(draft),
            (width, height),
            fps=frames_per_second,  # pyright: ignore[reportArgumentType]  (a fraction is fine)
            macro_block_size=2,
            output_params=["-crf", "12", "-metadata", f"comment={recipe}"],
            quality=None,  # pyright: ignore[reportArgumentType]  (-crf rules instead)
        )
        writer.send(None)
        for frame in pixels:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
    except (RuntimeError, OSError) as error:
        raise MissingDependencyError(f"ffmpeg could not write the clip ({error}); try --format gif") from error


def _mp4_comment(path: Path) -> str:
    """The comment of a clip, empty where ffmpeg finds none; it writes some characters with a backslash before them."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    told = subprocess.run(command, capture_output=True, check=False).stdout.decode()
    found = re.search(r"^comment=(.*)$", told, re.MULTILINE)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else ""


WRITERS: dict[str, dict[str, Writer]] = {"picture": {".png": _png}, "clip": {".mp4": _mp4, ".gif": _gif}}
"""Formats by kind of media; the first is the one used when none is asked for."""
