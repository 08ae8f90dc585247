"""What a request asks for, as OpenAI's clients write it, checked and turned into orders, or refused in one line."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from outpace.errors import OutpaceError
from outpace.registry import suggestion
from outpace.serve.orders import About, Order
from outpace.serve.pictures import FORMATS
from outpace.serve.tiers import OWN, tier_named

_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")


class Turned(OutpaceError):
    """A request that is answered with an error.

    Args:
        message: one line for whoever asked.
        status: of HTTP.
        param: which part of the request is at fault.
        code: a word for programs.
        after: seconds after which to ask again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.after = status, param, code, after

    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read errors."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class Asked(BaseModel):
    """The body of a request for pictures. What is not OpenAI's: speedup, seed, steps, guidance, strength."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str = Field(min_length=1, max_length=32_000)
    model: str | None = None
    n: int = Field(default=1, ge=1, le=10)
    size: str = "auto"
    quality: str = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: str = "png"
    stream: bool = False
    speedup: float | None = Field(default=None, ge=1, le=1000)
    """How many times fewer blocks, in place of a quality."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Of the first picture; each further one has the next."""
    steps: int | None = Field(default=None, ge=1)
    guidance: float | None = Field(default=None, ge=0, le=100)
    strength: float = Field(default=0.6, gt=0, le=1)
    """How much of a picture that is changed is given up."""
    background: Literal["auto", "opaque"] = "auto"
    partial_images: Literal[0] = 0
    user: str | None = None
    moderation: str | None = None
    style: str | None = None
    """Taken and not used, like the two before."""

    @field_validator("n", "speedup", "seed", "steps", "guidance", "strength", mode="before")
    @classmethod
    def _number(cls, given: Any) -> Any:
        """Numbers, also as the words of a form; true is no 1."""
        if isinstance(given, bool):
            raise ValueError("a number is wanted, not true or false")
        return given


def read_json(body: bytes) -> dict[str, Any]:
    """The fields of a JSON body. Raises: Turned where it is none."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Turned("the body is not JSON", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise Turned('the body is not a JSON object such as {"prompt": "a red bicycle"}', code="invalid_json")
    return fields


def read_asked(fields: dict[str, Any]) -> Asked:
    """The request that `fields` spell; null means not given. Raises: Turned."""
    given = {name: value for name, value in fields.items() if value is not None}
    for name in given:
        if name not in Asked.model_fields:
            raise Turned(f"no field '{name}'{suggestion(name, list(Asked.model_fields))}", param=name)
    try:
        return Asked(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else None
        raise Turned(f"{name}: {first['msg'].removeprefix('Value error, ')}", param=name) from None


def orders_of(
    asked: Asked, about: About, *, usual: str, max_pixels: int, max_steps: int, files: dict[str, bytes] | None = None
) -> list[Order]:
    """One order for each picture that is asked for.

    Args:
        usual: the tier where none is asked for.
        max_pixels: of a picture at most.
        max_steps: of a picture at most.
        files: "image" and perhaps "mask", where a picture is to be changed.

    Raises: Turned.
    """
    if asked.model not in (None, "", about.pipeline):
        raise Turned(
            f"no model '{asked.model}' here; this server has '{about.pipeline}'",
            status=404,
            param="model",
            code="model_not_found",
        )
    if asked.output_format not in FORMATS:
        raise Turned(
            f"no output_format '{asked.output_format}'{suggestion(asked.output_format, list(FORMATS))}",
            param="output_format",
        )
    try:
        tier = tier_named(asked.quality, usual)
    except OutpaceError as error:
        raise Turned(str(error), param="quality") from None
    if asked.speedup is not None:
        if asked.quality != "auto":
            raise Turned("speedup: it and quality both say how much is computed; keep one", param="speedup")
        if len(about.tiers) == 1:
            raise Turned("speedup: nothing of this pipeline can be left out; leave it out", param="speedup")
        tier = OWN
    elif tier not in about.tiers:
        raise Turned(f"this pipeline has no quality but {', '.join(about.tiers)}", param="quality")
    steps = asked.steps or about.steps
    if steps > max_steps:
        raise Turned(f"steps: at most {max_steps} here, not {steps}", param="steps")
    if asked.guidance is not None and not about.guided:
        raise Turned("this pipeline takes no guidance; leave it out", param="guidance")
    size = _size(asked.size, about, max_pixels)
    files = files or {}
    if files and not about.edits:
        raise Turned("this pipeline changes no pictures; ask for new ones at /v1/images/generations")
    if "mask" in files and not about.masks:
        raise Turned("this pipeline takes no mask; leave it out", param="mask")
    seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    return [
        Order(
            prompt=asked.prompt,
            seed=(seed + number) % 2**63,
            tier=tier,
            steps=steps,
            speedup=asked.speedup,
            guidance=asked.guidance,
            height=size[0] if size else None,
            width=size[1] if size else None,
            source=files.get("image"),
            mask=files.get("mask"),
            strength=asked.strength if files else None,
            format=asked.output_format,
            watched=asked.stream,
        )
        for number in range(asked.n)
    ]


def _size(asked: str, about: About, max_pixels: int) -> tuple[int, int] | None:
    """Height and width, or None for the pipeline's own."""
    if asked == "auto":
        return None
    found = _SIZE.fullmatch(asked)
    if found is None:
        raise Turned(f"size: WIDTHxHEIGHT in pixels or auto, not '{asked[:40]}'", param="size")
    width, height = int(found[1]), int(found[2])
    if (height, width) == about.size:
        return None
    if not about.sized:
        raise Turned(f"size: this pipeline makes {about.size[1]}x{about.size[0]} and nothing else", param="size")
    if width * height > max_pixels:
        raise Turned(f"size: {asked} are {width * height} pixels; at most {max_pixels} here", param="size")
    if height % about.multiple or width % about.multiple:
        raise Turned(f"size: width and height must be multiples of {about.multiple}, not {asked}", param="size")
    return height, width
