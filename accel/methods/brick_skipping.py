"""Brick skipping: groups of consecutive blocks are left out at noise levels where the picture misses them least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..bricks.brick import Brick, read_schedule
from ..ranges import require
from . import METHODS, Method

if TYPE_CHECKING:
    from ..part import Part, Shared


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
            settings: of the calibration: see `outpace.accel.calibration.bricks.Calibration`.

        Raises: ConfigError for settings out of their range; UnsupportedModelError.
        """
        from ..calibration.bricks import Calibration

        return Calibration(**settings).schedule(pipe, prompts, target=target, saves=saves)

    def part(self, shared: Shared) -> Part:
        from ..bricks.engine import BrickEngine

        return BrickEngine(self.bricks, self.reuse, shared)
