"""Models and pipelines of our own, and the loading of anyone's. Nothing heavy is imported until it is touched."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "POCKETS": ".pocket.recipes",
    "check_pocket": ".pocket.cards",
    "load_pocket": ".pocket.store",
    "pocket_path": ".pocket.store",
    "train_pocket": ".pocket.train",
}

__all__ = [*_HOME]

if TYPE_CHECKING:
    from .pocket.cards import check_pocket as check_pocket
    from .pocket.recipes import POCKETS as POCKETS
    from .pocket.store import load_pocket as load_pocket
    from .pocket.store import pocket_path as pocket_path
    from .pocket.train import train_pocket as train_pocket


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module 'outpace.pipelines' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
