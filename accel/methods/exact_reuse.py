"""Exact reuse: what is given the same at every step of a run is computed once in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..ranges import number
from . import METHODS, Method

if TYPE_CHECKING:
    from ..part import Part, Shared


@METHODS.register("exact_reuse")
@dataclass(frozen=True, kw_only=True, slots=True)
class ExactReuse(Method):
    """Computes once a run, for each branch of guidance, what only sees the prompt or reference pictures, bit for bit.

    Which modules that are, the model's family says: projections of text, its keys and values in cross-attention,
    blocks of text or reference pictures that see no timestep. What they are given is compared before anything is
    reused: where it changed, or adapters did, they are computed. What sees the timestep or attends to the picture, such
    as the reference tokens of FLUX Kontext and Qwen-Image-Edit, changes at every step and is computed at every step.

    `speedup=` and the presets bring it along wherever a family names something.

    Raises: ConfigError for a setting out of its range.
    """

    name: ClassVar[str] = "exact_reuse"
    place: ClassVar[str] = "reuse"

    gigabytes: float = 0.5
    """Results that are kept at most, in 10^9 bytes, 0 or more; what has no room is computed. 0 keeps none."""

    def __post_init__(self) -> None:
        number("gigabytes", self.gigabytes, 0.0)

    def part(self, shared: Shared) -> Part:
        from ..reuse import Reuse

        return Reuse(self.gigabytes, shared)
