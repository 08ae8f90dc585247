"""A brick: some consecutive blocks, and the noise levels at which they are left out; a schedule is several of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError
from ..ranges import number, require, whole

_RULE = re.compile(r"(\d+)(?:-(\d+))?(?:@([^@:]+?)\.\.([^@:]+?))?(?::([^@:]+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Brick:
    """Some consecutive blocks, and the noise levels at which they are left out.

    Raises: ConfigError for a number out of its range.
    """

    first: int
    """First block, counted from 0 over all stacks of the transformer in the order in which they run."""

    last: int
    """Last block, `first` or later."""

    low: float = 0.0
    """Least noise level at which the brick is left out, 0 to 1: 0 is the finished picture."""

    high: float = 1.0
    """Largest noise level at which it is, `low` to 1: 1 is pure noise."""

    share: float = 1.0
    """Share of the steps in that range that leave it out, above 0 to 1, spread evenly: 1 never runs it there, 0.5 runs
    it every other step."""

    def __post_init__(self) -> None:
        whole("a brick's first block", self.first, 0)
        whole("a brick's last block", self.last, self.first)
        number("a brick's lowest noise level", self.low, 0.0, 1.0)
        number("a brick's highest noise level", self.high, self.low, 1.0)
        number("a brick's share of the steps", self.share, 0.0, 1.0)
        require(self.share > 0, "a brick that is left out of no step needs no place in the schedule: share is above 0")

    @staticmethod
    def read(text: str) -> Brick:
        """The brick that `text` spells: "4-7@0.2..0.9:0.5"; without "@" at every level, without ":" in every step.

        Raises: ConfigError where it spells none.
        """
        found = _RULE.fullmatch(text.strip())
        if found is None:
            raise ConfigError(f"cannot read the brick '{text}'; write FIRST-LAST@LOW..HIGH:SHARE, as in 4-7@0..0.3")
        first, last, low, high, share = found.groups()
        try:
            return Brick(
                first=int(first),
                last=int(last or first),
                low=float(low or 0.0),
                high=float(high or 1.0),
                share=float(share or 1.0),
            )
        except ValueError as error:
            raise ConfigError(f"the brick '{text}' holds what is no number: {error}") from error

    def __str__(self) -> str:
        blocks = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        levels = f"@{self.low:.6g}..{self.high:.6g}" if (self.low, self.high) != (0.0, 1.0) else ""
        return blocks + levels + (f":{self.share:.6g}" if self.share != 1.0 else "")


def read_schedule(given: str | Iterable[Brick | Sequence[float]]) -> tuple[Brick, ...]:
    """The bricks of a schedule, however it is given. Raises: ConfigError where it cannot be read."""
    if isinstance(given, str):
        return tuple(Brick.read(part) for part in given.split("/") if part.strip())
    if isinstance(given, (int, float)) or not isinstance(given, Iterable):
        # What the command line takes for a number is a block.
        return read_schedule(str(given))
    found = []
    for entry in given:
        if isinstance(entry, Brick):
            found.append(entry)
        elif isinstance(entry, (tuple, list)) and 4 <= len(entry) <= 5:
            fields: dict[str, Any] = dict(zip(("first", "last", "low", "high", "share"), entry, strict=False))
            found.append(Brick(**fields))
        elif isinstance(entry, (int, float)) and math.isfinite(entry) and entry == int(entry):
            found.append(Brick(first=int(entry), last=int(entry)))
        else:
            raise ConfigError(f"a brick is (first, last, low, high) or (first, last, low, high, share), not {entry!r}")
    return tuple(found)
