"""What one `outpace generate` asks for, and which methods that means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outpace.accel import Method

DEFAULT_PRESET = "balanced"


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a command line asks for, as plain data that another process can read."""

    pipeline: str
    wanted: list[tuple[str, int]]
    """Prompt and seed of each file."""
    speedup: float | None
    preset: str | None
    methods: tuple[str, ...]
    profile: str | None
    plain: bool
    options: dict[str, Any]
    """What `pipeline_options` were given: adapters, pictures to start from, and their like."""
    settings: dict[str, Any]
    """Options of the pipeline's call, by name; None leaves the pipeline's own value."""
    batch: int
    out: str
    format: str | None
    fps: float
    enlarge: int
    dtype: str | None
    device: str


def choose(texts: tuple[str, ...], preset: str | None, neither: bool) -> tuple[list[Method], str | None]:
    """The methods given, or else a preset's name, checked before anything is loaded; nothing where neither is used."""
    from outpace.accel import PRESETS
    from outpace.cli.options.method import parse_method

    if neither or texts:
        return [parse_method(text) for text in texts], None
    preset = preset or DEFAULT_PRESET
    PRESETS[preset]
    return [], preset


def words_of(order: Order, preset: str | None) -> tuple[str, ...]:
    """The words of the command line that chose the acceleration."""
    if order.plain:
        return ("--plain",)
    if order.speedup is not None:
        return ("--speedup", f"{order.speedup:g}")
    return ("--preset", preset) if preset else tuple(word for text in order.methods for word in ("--method", text))
