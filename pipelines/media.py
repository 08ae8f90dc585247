"""Pictures and clips to files, whole or not at all, with the recipe that made them inside.

Legend: media is a float array in 0..1, HWC for a picture, THWC for a clip.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependencyError
from ..files import whole_file

RECIPE = "outpace"
"""Name of the PNG text chunk that holds the recipe."""

FRAME_RATES = (0.1, 1000.0)
"""Frames a second that a clip can be saved with, from and to."""

Writer = Callable[[np.ndarray, Path, str, float], None]


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
    low, high = FRAME_RATES
    if not low <= frames_per_second <= high:
        raise InputError(f"{frames_per_second} frames a second cannot be saved; choose {low:g} to {high:g}")
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
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
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
    # The usual 4:2:0 colour of H.264 wants even sizes; an odd one repeats its last row or column.
    pixels = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2), (0, 0)), mode="edge")
    height, width = pixels.shape[1:3]
    program = _ffmpeg()
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{frames_per_second:.6f}"]
    coding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "12", "-metadata", f"comment={recipe}"]
    # -xerror: a frame that could not be written is an error, and not a line in a log.
    command = [program, "-y", "-v", "error", "-xerror", *source, "-i", "-", "-an", *coding, "-f", "mp4", str(draft)]
    ran = subprocess.run(command, input=np.ascontiguousarray(pixels).tobytes(), capture_output=True, check=False)
    whole = ran.returncode == 0 and _frames(draft) == len(pixels)
    if not whole:
        words = ran.stderr.decode(errors="replace").strip().splitlines()
        full = next((line for line in words if "No space left" in line), None)
        why = full or (words[-1] if words else f"it ended with {ran.returncode} and the clip is not whole")
        raise OSError(f"ffmpeg could not write the clip: {why.rpartition('] ')[2]}")


def _ffmpeg() -> str:
    """Where ffmpeg is. Raises: MissingDependencyError."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"a .mp4 needs ffmpeg ({error}): pip install imageio-ffmpeg, or take --format gif"
        ) from error


def _frames(path: Path) -> int:
    """Frames that a clip holds, by reading it to its end; 0 where it is no clip that can be read."""
    command = [_ffmpeg(), "-v", "error", "-xerror", "-i", str(path), "-map", "0:v:0", "-c", "copy"]
    ran = subprocess.run([*command, "-f", "framehash", "-"], capture_output=True, check=False)
    lines = ran.stdout.decode(errors="replace").splitlines()
    return sum(not line.startswith("#") for line in lines) if ran.returncode == 0 else 0


def _mp4_comment(path: Path) -> str:
    """The comment of a clip, empty where ffmpeg finds none; it writes some characters with a backslash before them."""
    command = [_ffmpeg(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    told = subprocess.run(command, capture_output=True, check=False).stdout.decode()
    found = re.search(r"^comment=(.*)$", told, re.MULTILINE)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else ""


WRITERS: dict[str, dict[str, Writer]] = {"picture": {".png": _png}, "clip": {".mp4": _mp4, ".gif": _gif}}
"""Formats by kind of media; the first is the one used when none is asked for."""
