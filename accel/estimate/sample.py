"""One sample of a model at a size, as its denoiser is called for it: what is counted, on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...errors import ConfigError, InputError
from .models import Model
from .signature import Latent, Signature
from .source import build_on_meta, find_model, settings_of, signature_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What is made, and one call of the denoiser for it."""

    model: Model
    transformer: nn.Module
    """On the meta device: shapes, no weights."""
    inputs: dict[str, Any]
    """Keyword arguments of one call, on the meta device."""
    latent: Latent
    height: int
    width: int
    frames: int | None
    """None for pictures."""
    steps: int
    calls: int
    """Calls of the denoiser a step."""


def sample_of(
    model: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    steps: int | None = None,
    text_tokens: int | None = None,
    calls: int | None = None,
) -> Sample:
    """The call of `model` that makes one sample of a size, from its configuration alone.

    Args: as those of `estimate`; what is left out is the model's own.

    Raises: UnknownNameError, InputError, ConfigError, UnsupportedModelError: with what to do.
    """
    for name, value in (("steps", steps), ("text_tokens", text_tokens), ("calls", calls)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    found = find_model(model)
    signature = signature_of(found.transformer)
    transformer = build_on_meta(found.transformer, dict(found.config))
    config = settings_of(transformer)
    text = next(
        n for n in (text_tokens, found.text, config.get("max_text_seq_length"), signature.text) if n is not None
    )
    size = _size(found, signature, height, width, frames)
    latent = _latent(found, signature.patch(config), size, text if signature.text else 0)
    with torch.device("meta"):
        inputs = signature.inputs(config, latent)
    return Sample(
        model=found,
        transformer=transformer,
        inputs=inputs,
        latent=latent,
        height=size[0],
        width=size[1],
        frames=size[2],
        steps=steps or found.steps,
        calls=calls or found.calls or (2 if signature.guided(config) else 1),
    )


def _size(
    found: Model, signature: Signature, height: int | None, width: int | None, frames: int | None
) -> tuple[int, int, int | None]:
    height, width = height or found.height, width or found.width
    if height is None or width is None:
        raise InputError(f"the size is not in the configuration of '{found.name}'; give height and width in pixels")
    if not signature.video:
        if frames is not None:
            raise InputError(f"'{found.name}' makes pictures; leave frames out")
        return height, width, None
    frames = frames or found.frames
    if frames is None:
        raise InputError(f"'{found.name}' makes clips; give the number of frames")
    return height, width, frames


def _latent(found: Model, patch: tuple[int, int, int], size: tuple[int, int, int | None], text: int) -> Latent:
    height, width, frames = size
    for word, value, step in (("height", height, found.space * patch[1]), ("width", width, found.space * patch[2])):
        if value < step or value % step:
            below = value // step * step
            near = f"{below} or {below + step}" if below else f"{step}"
            raise InputError(f"{word} {value} is no multiple of {step}, which '{found.name}' needs; try {near}")
    if frames is not None and (frames < 1 or (frames - 1) % found.time):
        below = max(0, frames - 1) // found.time * found.time + 1
        raise InputError(
            f"frames {frames}: '{found.name}' makes 1 frame and a multiple of {found.time} more; "
            f"try {below} or {below + found.time}"
        )
    return Latent(
        frames=1 if frames is None else (frames - 1) // found.time + 1,
        height=height // found.space,
        width=width // found.space,
        text=text,
        patch=patch,
        time_per_token=found.time_per_token,
    )
