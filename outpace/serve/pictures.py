"""Pictures as the bytes of a file, and back: nothing here touches a disk."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from outpace.errors import InputError
from outpace.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

LARGEST_SOURCE = 64_000_000
"""Pixels of a picture that is sent to be changed; a small file can hold a very large one."""

FORMATS: Registry[Callable[[np.ndarray, str], bytes]] = Registry("output_format")
"""Formats that a picture can be answered in; each is given floats in 0..1, HWC, and the recipe."""


@FORMATS.register("png")
def _png(picture: np.ndarray, recipe: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    from outpace.pipelines.media import RECIPE

    text = PngInfo()
    text.add_itxt(RECIPE, recipe)
    return _filed(picture, format="PNG", pnginfo=text)


@FORMATS.register("jpeg")
def _jpeg(picture: np.ndarray, recipe: str) -> bytes:
    return _filed(picture, format="JPEG", quality=95, comment=recipe.encode())


@FORMATS.register("webp")
def _webp(picture: np.ndarray, recipe: str) -> bytes:
    return _filed(picture, format="WEBP", lossless=True)


@FORMATS.register("npy")
def _npy(picture: np.ndarray, recipe: str) -> bytes:
    file = io.BytesIO()
    np.save(file, picture.astype(np.float32), allow_pickle=False)
    return file.getvalue()


def encode(picture: np.ndarray, format: str, recipe: dict[str, Any]) -> bytes:
    """A picture as a file that carries its recipe, where the format can.

    Args:
        picture: HWC, floats in 0..1.
        format: of FORMATS; "npy" is the floats as they are.

    Raises: InputError where a value is not a number.
    """
    if not np.isfinite(picture).all():
        raise InputError("the pipeline made values that are not numbers; half precision may have overflowed")
    return FORMATS[format](picture, json.dumps(recipe))


def _filed(picture: np.ndarray, **how: Any) -> bytes:
    from PIL import Image

    pixels = (picture.clip(0.0, 1.0) * 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, **how)
    return file.getvalue()


def opened(file: bytes | None) -> Image:
    """A picture that was sent. Raises: InputError where it is none that can be read, or too large a one."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(file or b""), formats=("PNG", "JPEG", "WEBP"))
        if image.width * image.height > LARGEST_SOURCE:
            raise InputError(f"the picture has {image.width}x{image.height} pixels; send a smaller one")
        image.load()
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError("the picture is no PNG, JPEG or WEBP") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError("the picture's file is damaged") from error
    return image


def painted(mask: bytes | None) -> Image:
    """White where a mask is transparent, black elsewhere. Raises: InputError for a mask without transparency."""
    image = opened(mask)
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        raise InputError("the mask has no transparency; make what shall be painted anew transparent, and send a PNG")
    return image.convert("RGBA").getchannel("A").point([255] * 128 + [0] * 128)


def digest(file: bytes) -> str:
    """What tells a file from another in a recipe."""
    return hashlib.sha256(file).hexdigest()
