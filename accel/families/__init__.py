"""What a model family looks like from outside: its stacks of blocks in order, and what a block takes and returns.

One small file a family, holding data only. A block is intercepted at its call, so nothing here names a patch.
To add a family see docs/adding_a_family.md; `register_family` does it from outside the library.
"""

from __future__ import annotations

import importlib
import pkgutil

from .family import FAMILIES, IMAGE_THEN_TEXT, TEXT_THEN_IMAGE, Family, Stack, find_family, register_family

for _module in pkgutil.iter_modules(__path__):  # each registers itself
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "FAMILIES",
    "IMAGE_THEN_TEXT",
    "TEXT_THEN_IMAGE",
    "Family",
    "Stack",
    "find_family",
    "register_family",
]
