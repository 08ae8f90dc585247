"""What travels between a server and its engines, as plain data that survives pickling.

An order asks for one picture. An engine answers with any number of `Progress`, and one `Made`, `Refused` or `Failed`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One picture that somebody asked for, with nothing left open."""

    prompt: str
    seed: int
    tier: str
    """Name of a tier, or that of a dial of one's own (see tiers.py)."""
    steps: int
    speedup: float | None = None
    """How many times fewer blocks; None leaves what the tier stands for."""
    guidance: float | None = None
    """None leaves the pipeline's own."""
    height: int | None = None
    width: int | None = None
    """Pixels; None leaves the pipeline's own."""
    source: bytes | None = None
    """The picture to change, as a file."""
    mask: bytes | None = None
    """Where to change it: a file whose transparent pixels are painted anew."""
    strength: float | None = None
    """How much of the source is given up, 0 to 1."""
    format: str = "png"
    watched: bool = False
    """True where somebody wants to be told of every step."""

    def shape(self) -> tuple[Any, ...]:
        """What orders must share to be made in one call of the pipeline."""
        given = (self.source is not None, self.mask is not None)
        return (self.height, self.width, self.steps, self.guidance, self.strength, *given)

    def dial(self) -> tuple[str, float | None]:
        """What orders share that compute at much the same steps."""
        return (self.tier, self.speedup)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A step was taken."""

    step: int
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """The picture."""

    picture: bytes
    recipe: dict[str, Any]
    """What makes it again; a PNG carries the same."""
    computed: dict[str, Any]
    """What was computed for it: "share" of all blocks, and of each step whether it was computed and why."""
    batch: int
    """Pictures that were made together with it, itself among them."""
    seconds: float
    """Of the pipeline's call that made them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """It cannot be made as asked."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """It could have been made, and was not."""

    message: str
    """For the log; not for strangers."""


Event: TypeAlias = "Progress | Made | Refused | Failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a server has to know of its pipeline to check requests before they cost anything."""

    pipeline: str
    steps: int
    """Steps when none are asked for."""
    size: tuple[int, int]
    """Height and width when none are asked for, pixels."""
    sized: bool
    """False where the pipeline makes this one size."""
    multiple: int
    """What height and width must be multiples of."""
    guided: bool
    """True where the pipeline takes a guidance scale."""
    tiers: dict[str, str]
    """What each tier means here, in words."""
    edits: bool = False
    masks: bool = False
    example: str = ""
    """A prompt to begin with."""
    warnings: list[str] = field(default_factory=list)


class Maker(Protocol):
    """Who makes what is ordered: an engine in this process, or replicas."""

    about: About

    def events(self, order: Order) -> AsyncGenerator[Event, None]:
        """Make one picture; closing the iterator early gives it up."""
        ...

    def health(self) -> dict[str, Any]:
        """At least "ready", the number of engines that could take an order now, and "wanted"."""
        ...

    def close(self) -> None:
        """Let go of everything that was started."""
        ...
