"""What a call is given beside its prompt: pictures to start from, a mask, how far to go, what is not wanted.

A pipeline of texts that diffusers has a sister of (FluxPipeline, FluxImg2ImgPipeline) becomes that sister where a
picture is given; what neither takes is refused by the signature of the call.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, InputError
from ..files import read_bytes

if TYPE_CHECKING:
    from .load import Loaded

TRUE_GUIDANCE = 4.0
"""Of a pipeline whose own guidance knows no negative prompt, where one is given and no --guidance is."""

SEVERAL = ("QwenImageEditPlusPipeline", "QwenImage21Pipeline")
"""Pipelines that take several pictures for one prompt and whose signature does not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """As named on a command line; plain data."""

    images: tuple[str, ...] = ()
    mask: str | None = None
    strength: float | None = None
    negative_prompt: str | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and not self.images:
            raise ConfigError("--mask says what of a picture is made anew; give the picture with --image")
        if self.strength is not None and not self.images:
            raise ConfigError("--strength says how far to go from a picture; give the picture with --image")
        for path in (*self.images, *([self.mask] if self.mask else [])):
            read_picture(path)

    def digests(self) -> dict[str, str]:
        """{path: a digest of what is in the file}: another picture under the same name is another request."""
        paths = (*self.images, *([self.mask] if self.mask else []))
        return {path: hashlib.sha256(read_bytes(path, "the picture")).hexdigest()[:16] for path in paths}

    def arguments(self, loaded: Loaded, beside: dict[str, Any]) -> dict[str, Any]:
        """What the call of a pipeline gets, `beside` among it. Raises: InputError for what it does not take."""
        from .load import TRUE_SCALE, accepted_by

        accepted, kind = accepted_by(loaded.pipe), type(loaded.pipe).__name__
        given = dict(beside)
        if self.images:
            if "image" not in accepted:
                raise InputError(f"{kind} takes no --image; leave it out")
            if len(self.images) > 1 and not takes_several(loaded.pipe):
                raise InputError(f"{kind} takes one --image, not {len(self.images)}; leave the others out")
            pictures = [read_picture(path) for path in self.images]
            given["image"] = pictures if len(pictures) > 1 else pictures[0]
        for word, name, value in (
            ("mask", "mask_image", read_picture(self.mask, "L") if self.mask else None),
            ("strength", "strength", self.strength),
            ("negative-prompt", "negative_prompt", self.negative_prompt),
        ):
            if value is None:
                continue
            if name not in accepted:
                raise InputError(f"{kind} takes no --{word}; leave it out")
            given[name] = value
        if self.negative_prompt is not None and TRUE_SCALE in accepted:
            given.setdefault(TRUE_SCALE, TRUE_GUIDANCE)
        return given


def takes_several(pipe: Any) -> bool:
    """Whether a call takes several pictures for one prompt; where a list means one a prompt, it does not."""
    from diffusers.image_processor import PipelineImageInput

    kind = inspect.signature(type(pipe).__call__).parameters["image"].annotation
    one_a_prompt = kind in (PipelineImageInput, PipelineImageInput | None)
    return type(pipe).__name__ in SEVERAL or (not one_a_prompt and "list[" in str(kind).lower())


def read_picture(path: str, mode: str = "RGB") -> Any:
    """A picture of Pillow's. Raises: InputError where the file is missing, damaged, or no picture."""
    import io

    from PIL import Image

    content = read_bytes(path, "the picture")
    try:
        found = Image.open(io.BytesIO(content))
        found.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"'{path}' is no picture that can be read; give a whole .png, .jpg or .webp") from error
    return found.convert(mode)


def suited(loaded: Loaded, inputs: Inputs) -> Loaded:
    """`loaded`, or its sister that starts from a picture where one is given and the pipeline itself takes none.

    Raises: InputError where there is no such sister.
    """
    from .load import accepted_by

    accepted = accepted_by(loaded.pipe)
    needed = {"image"} | ({"mask_image"} if inputs.mask else set())
    if not inputs.images or needed <= accepted:
        return loaded
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

    sisters = AutoPipelineForInpainting if inputs.mask else AutoPipelineForImage2Image
    try:
        pipe = sisters.from_pipe(loaded.pipe, torch_dtype=loaded.pipe.transformer.dtype)
    except (ValueError, AttributeError, TypeError) as error:
        word = "--mask" if inputs.mask else "--image"
        raise InputError(
            f"{type(loaded.pipe).__name__} takes no {word}, and diffusers has no sister that does"
        ) from error
    pipe.set_progress_bar_config(**getattr(loaded.pipe, "_progress_bar_config", {}))
    return replace(
        loaded, pipe=pipe, call={key: value for key, value in loaded.call.items() if key in accepted_by(pipe)}
    )
