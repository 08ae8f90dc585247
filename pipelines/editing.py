"""From a pipeline that makes pictures to one of the same parts that changes them."""

from __future__ import annotations

import inspect
from typing import Any

from .load import accepted_by

EDITORS = {"image": "Img2ImgPipeline", "mask_image": "InpaintPipeline"}
"""What is given besides a prompt, and how diffusers' names of pipelines that take it end: FluxPipeline and
FluxImg2ImgPipeline."""


def editor_of(pipe: Any, given: str) -> Any:
    """A pipeline of the same parts that also takes `given` ("image", "mask_image"), or None where there is none."""
    import diffusers

    name = type(pipe).__name__.removesuffix("Pipeline") + EDITORS[given]
    kind = getattr(diffusers, name, None)
    # One that takes its noise, its size or the picture otherwise cannot be called as `Engine` calls it.
    if kind is None or not {given, "image", "strength", "generator", "height"} <= accepted_by(kind):
        return None
    wanted = inspect.signature(kind.__init__).parameters
    parts = {part: module for part, module in pipe.components.items() if part in wanted}
    missing = [name for name, p in wanted.items() if p.default is p.empty and name not in ("self", *parts)]
    return None if missing else kind(**parts)
