"""What a model family looks like from outside: its stacks of blocks in order, and what a block takes and returns.

One small file a family, holding data only. A block is intercepted at its call, so nothing here names a patch.
To add a family see docs/adding_a_family.md; `register_family` does it from outside the library.
"""

from __future__ import annotations

from . import (
    auraflow,
    chroma,
    cogvideox,
    cogview,
    dit,
    dit3d,
    flux,
    flux2,
    hunyuan,
    lego,
    ltx,
    lumina,
    mochi,
    pixart,
    qwen,
    sana,
    sd3,
    vdt,
    wan,
    z_image,
)
from .family import FAMILIES, IMAGE_THEN_TEXT, TEXT_THEN_IMAGE, Family, Stack, find_family, register_family

__all__ = [
    "FAMILIES",
    "IMAGE_THEN_TEXT",
    "TEXT_THEN_IMAGE",
    "Family",
    "Stack",
    "auraflow",
    "chroma",
    "cogvideox",
    "cogview",
    "dit",
    "dit3d",
    "find_family",
    "flux",
    "flux2",
    "hunyuan",
    "lego",
    "ltx",
    "lumina",
    "mochi",
    "pixart",
    "qwen",
    "register_family",
    "sana",
    "sd3",
    "vdt",
    "wan",
    "z_image",
]
