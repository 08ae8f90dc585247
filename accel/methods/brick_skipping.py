"""Brick skipping: groups of consecutive blocks are left out at noise levels where the picture misses them least."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import ConfigError
from . import METHODS, Method, number, require, whole

if TYPE_CHECKING:
    from ..bricks.calibrate import Calibration

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
        require(
            found is not None, f"cannot read the brick '{text}'; write FIRST-LAST@LOW..HIGH:SHARE, as in 4-7@0..0.3"
        )
        assert found is not None
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


@METHODS.register("bricks")
@dataclass(frozen=True, kw_only=True, slots=True)
class BrickSkipping(Method):
    """Leaves out groups of consecutive blocks where the schedule says so, told by the noise level and not by the step.

    So a schedule holds for any solver and number of steps. A block that is left out is not called, in any branch of
    guidance. `BrickSkipping.calibrate` finds a schedule for a pipeline; an empty one changes nothing, bit for bit.

    Source: the skippable bricks of LEGO (Zheng et al., ICLR 2024, arXiv:2310.06389), for stacks that were not trained
    for it; what stands in is the change that the brick made when it last ran, as in Delta-DiT (Chen et al., 2024,
    arXiv:2406.01125), unless `reuse` is off.

    Raises: ConfigError for a schedule that cannot be read.
    """

    name: ClassVar[str] = "bricks"
    place: ClassVar[str] = "bricks"

    schedule: str = ""
    """Bricks joined by slashes, each FIRST-LAST@LOW..HIGH:SHARE: "8-11@0.6..1/4-19@0..0.3:0.5" leaves out blocks 8 to
    11 where noise is above 0.6, and blocks 4 to 19 in every other step where it is below 0.3. In Python also a sequence
    of `Brick` or of (first, last, low, high)."""

    reuse: bool = True
    """What stands in for a brick: true adds the change that it made when it last ran, so that the first step of a run
    is computed in full; false nothing at all, for models whose bricks were trained to be left out."""

    def __post_init__(self) -> None:
        require(isinstance(self.reuse, bool), f"reuse must be true or false, not {self.reuse!r}")
        object.__setattr__(self, "schedule", "/".join(map(str, read_schedule(self.schedule))))

    @property
    def bricks(self) -> tuple[Brick, ...]:
        """The schedule, brick by brick."""
        return read_schedule(self.schedule)

    @classmethod
    def calibrate(
        cls,
        pipe: Any,
        prompts: Sequence[Any],
        target: float | None = None,
        *,
        saves: float | None = None,
        **settings: Any,
    ) -> BrickSkipping:
        """The schedule that leaves out the most blocks of `pipe` and keeps a fidelity, or loses least at a saving.

        Args:
            pipe: a diffusers pipeline with a scheduler.
            prompts: to calibrate with, as the pipeline takes them: texts, or numbers of classes. Others than those
                that the schedule is judged by; eight are enough.
            target: PSNR in dB that pictures keep on average towards the plain pipeline's; final latents where a run
                returns no pictures.
            saves: instead of a target, the share of all blocks that is left out, above 0 and below 1.
            settings: of the calibration: see `outpace.accel.bricks.calibrate.Calibration`.

        Raises: ConfigError for settings out of their range; UnsupportedModelError.
        """
        from ..bricks.calibrate import Calibration

        found: Calibration = Calibration(**settings)
        return found.schedule(pipe, prompts, target=target, saves=saves)


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
