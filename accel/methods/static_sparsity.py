"""Static sparsity: attention to what is near in the video, by a pattern that is laid down and not searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..densities import Densities
from ..patterns import PATTERNS
from ..ranges import number, require
from . import METHODS, Method
from .adaspa import AdaSpaTarget, check_shared, pair_of

if TYPE_CHECKING:
    from ..part import Part, Shared


@METHODS.register("static_sparsity")
@dataclass(frozen=True, kw_only=True, slots=True)
class StaticSparsity(Method):
    """Leaves out the blocks of self-attention that a pattern calls far away, the same in every run.

    What published static methods keep, at a density of one's choice and on the same kernels and tiles as `AdaSpa`: to
    know what searching is worth. Text tokens always see everything and are always seen.

    Source: Sliding Tile Attention (Zhang et al., 2025, arXiv:2502.04507), Radial Attention (Li et al., 2025,
    arXiv:2506.19852), Sparse VideoGen (Xi et al., 2025, arXiv:2502.01776); `accel/patterns/` says how each differs.

    Raises: ConfigError for a setting out of its range; UnknownNameError for a pattern that there is none of.
    """

    name: ClassVar[str] = "static_sparsity"
    place: ClassVar[str] = "attention"

    pattern: str = "sliding-tile"
    """What is near: "sliding-tile" a window in the proportions of the video, "radial" one that shrinks with the
    distance in time, "spatial-temporal" the own frames or the own place in all frames, as fits the head."""

    density: float = 0.3
    """Share of the blocks that every block of queries keeps, above 0 to 1; 1 keeps everything and changes nothing."""

    start: float = 0.1
    """Share of the steps that run dense at first, 0 to below 1."""

    block: int | tuple[int, int] = (128, 64)
    """Tokens of a block of queries and of keys, as of `AdaSpa`."""

    tile: bool = True
    """Visit the tokens of a video or picture tile by tile, so that a block is near in space and time."""

    min_tokens: int = 1024
    """Shorter attention is left alone, 1 or more."""

    min_gain: float = 0.05
    """Least gain of a denoiser call, as a share of its work, for which a layer is made sparse; 0 always does."""

    backend: str = "auto"
    """Which implementation of sparse attention runs: "auto", or one that `outpace doctor` lists."""

    def __post_init__(self) -> None:
        PATTERNS[self.pattern]
        for name in ("density", "start"):
            number(name, getattr(self, name), 0.0, 1.0)
        require(self.density > 0, f"density must be above 0, not {self.density!r}")
        require(self.start < 1, "start must be below 1: a pattern from the end of the run on would be of no use")
        check_shared(self)

    @property
    def blocks(self) -> tuple[int, int]:
        """Tokens of a block of queries, and of one of keys."""
        return pair_of(self.block)

    @property
    def target(self) -> AdaSpaTarget:
        """The density, as a target."""
        return AdaSpaTarget(name="density", value=float(self.density))

    @property
    def exact(self) -> bool:
        """True where nothing may be left out."""
        return self.density >= 1.0

    @property
    def searches(self) -> tuple[float, ...]:
        """When the pattern is laid down."""
        return (self.start,)

    ranges: ClassVar[tuple[Densities, ...]] = ()
    per: ClassVar[str] = "row"
    head_adaptive: ClassVar[bool] = False
    least: ClassVar[float] = 0.0
    most: ClassVar[float] = 1.0
    fresh: ClassVar[bool] = True
    slack: ClassVar[float] = 0.0
    drift: ClassVar[float] = 0.0
    most_searches: ClassVar[int] = 1

    def part(self, shared: Shared) -> Part:
        from ..attention import AttentionEngine

        asked: Any = self  # what is a field in AdaSpa is one of the class here, which a protocol tells apart
        return AttentionEngine(asked, shared)
