"""The way back for whoever did not keep the handle."""

from __future__ import annotations

from typing import Any

from torch import nn

from .denoiser import DENOISERS, driver_of
from .handle import Acceleration
from .kept import KEPT


def handle_of(target: Any) -> Acceleration | None:
    """The handle of what was done to a pipeline or transformer, for whoever did not keep it; None where it is plain."""
    kept = getattr(target, "__dict__", {}).get(KEPT)
    if kept is not None and kept.handle is not None:
        return kept.handle
    modules = [target] if isinstance(target, nn.Module) else [getattr(target, name, None) for name in DENOISERS]
    drivers = [driver for module in modules if (driver := driver_of(module)) is not None]
    return drivers[0].handle if drivers else None


def restore(target: Any) -> None:
    """Leave a pipeline or transformer exactly as it was before `accelerate`; nothing where it was not accelerated."""
    handle = handle_of(target)
    if handle is not None:
        handle.restore()
