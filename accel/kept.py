"""Where a pipeline keeps the handle of what was done to it."""

from __future__ import annotations

from typing import Any

KEPT = "_outpace"
"""Attribute under which a pipeline knows its handle."""


class Kept:
    """A handle on the pipeline that it changes; a copy of the pipeline, or a pickled one, is a plain one."""

    def __init__(self, handle: Any = None) -> None:
        self.handle = handle

    def __reduce__(self) -> tuple[Any, ...]:
        return (Kept, ())
