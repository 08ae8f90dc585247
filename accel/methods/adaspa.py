"""AdaSpa: block-sparse attention whose pattern is found online from the exact attention mass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..densities import Densities, read_densities
from ..ranges import number, one_of, require, whole
from . import METHODS, Method

if TYPE_CHECKING:
    from ..part import Part, Shared

TARGETS = ("recall", "sparsity", "density", "error")
BLOCKS = ((16, 16), (32, 32), (64, 64), (128, 64), (128, 128))
"""Tokens of a block, queries by keys: what the kernels of a GPU are made for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaSpaTarget:
    """What a selection has to reach; one field is set."""

    name: str
    value: float


def checked_block(block: Any) -> int | tuple[int, int]:
    """Tokens of a block, as one number or a pair. Raises: ConfigError for one that no kernel takes."""
    pair: Any = block if isinstance(block, (tuple, list)) else (block, block)
    sizes = ", ".join(str(queries) for queries, keys in BLOCKS if queries == keys)
    pairs = ", ".join(str(one) for one in BLOCKS if one[0] != one[1])
    known = tuple(pair) in BLOCKS and not isinstance(block, (bool, float))
    require(known, f"block must be one of {sizes} or {pairs}, not {block!r}")
    # A file holds a list, a command line floats.
    return (int(pair[0]), int(pair[1])) if isinstance(block, (tuple, list)) else int(block)


def check_shared(settings: Any) -> None:
    """Look at the settings that every method of sparse attention has. Raises: ConfigError for one out of its range."""
    number("min_gain", settings.min_gain, 0.0, 1.0)
    object.__setattr__(settings, "block", checked_block(settings.block))
    whole("min_tokens", settings.min_tokens, 1)
    require(isinstance(settings.tile, bool), f"tile must be true or false, not {settings.tile!r}")
    require(isinstance(settings.backend, str), f"backend must be a name, not {settings.backend!r}")


def pair_of(block: int | tuple[int, int]) -> tuple[int, int]:
    """Tokens of a block of queries, and of one of keys."""
    return (block, block) if isinstance(block, int) else block


@METHODS.register("adaspa")
@dataclass(frozen=True, kw_only=True, slots=True)
class AdaSpa(Method):
    """Leaves out blocks of self-attention that hold little of its mass, measured at a few steps of the run itself.

    The first steps run dense. At a search step the exact mass of every block of keys for every block of queries is
    computed beside the dense output, and what the target asks for is kept; later steps attend to those blocks only.
    Give one target: `recall`, `sparsity`, `density` or `error`; without any it is recall=0.99. Text tokens always see
    everything and are always seen. Layers where too little could be left out, and models whose attention is too small
    a share of the work, are left alone; the trace says which and why.

    Source: AdaSpa (Xia et al., 2025, arXiv:2502.21079). Differs from the paper by default: blocks are chosen by the
    recall they are to reach instead of a fixed sparsity; a new search runs the dense attention again instead of reusing
    its old normaliser; the recall of later calls is measured, and its fall calls for a search; tokens of a video are
    visited in tiles. `AdaSpa.paper(sparsity)` switches all of that off.

    Raises: ConfigError for a setting out of its range.
    """

    name: ClassVar[str] = "adaspa"
    place: ClassVar[str] = "attention"

    recall: float | None = None
    """Share of the attention mass that every block of queries keeps at least, above 0 to 1, measured at the search; 1
    keeps everything. Lower is faster and drifts further. On learnt attention 0.98 to 0.995 is the useful range:
    below, a little less work costs many decibels."""

    sparsity: float | None = None
    """Share of the blocks that is left out, 0 to below 1, whatever they hold: the paper's way. 0 is dense."""

    density: float | None = None
    """Share of the blocks that is kept on average over a layer, above 0 to 1, given to the rows that need it: the
    largest least recall that this budget can buy."""

    error: float | None = None
    """Relative L2 error of a head's output that is accepted, above 0, measured at the search with one sparse call.
    Heads whose attention is flat lose little by a low recall and are given less."""

    schedule: str = ""
    """Instead of a target, the density of every head by layer and noise level, as `calibrate` finds it: ranges joined
    by slashes, each LOW..HIGH:LAYER-LAYER with a letter for each head of a layer, a decibel each: a keeps everything, d
    half of the blocks, g a quarter, k a tenth. Where no range holds the noise level everything is kept. In Python also
    a sequence of `accel.densities.Densities`."""

    per: str = "row"
    """With `recall`: "row" holds the target in every block of queries; "head" only on average over a head, which keeps
    fewer blocks and lets single rows fall below."""

    head_adaptive: bool = True
    """With `sparsity`: heads of high recall give a share of their blocks to as many of low recall (paper, 4.3)."""

    least: float = 0.0
    """Smallest share of the blocks that a row keeps, 0 to 1; guards rows whose mass sits on a few keys."""

    most: float = 1.0
    """Largest share of the blocks that a row keeps, above 0 to 1, even where the target is missed by that."""

    searches: tuple[float, ...] = (0.1,)
    """When a search is due, as shares of the steps of a run, rising, each 0 to below 1 (on the command line joined by
    slashes: 0.1/0.5). Everything before the first is dense. More searches cost a dense step and more each; none but the
    first matters much (paper, table 3), and `slack` calls for more where they are needed."""

    fresh: bool = True
    """Later searches run the dense attention again, which is exact. False ranks with the normaliser of the first
    search, at half the cost, and cannot say what recall was reached."""

    slack: float = 0.03
    """Fall of a layer's recall below that of its search that calls for a new one, above 0; 0 does not measure it. The
    recall of sparse calls is measured on 64 of their queries, at about their share of a dense call."""

    drift: float = 0.0
    """Mean change of the sparse normaliser's logarithm since the search that calls for a new one, above 0; 0 never. It
    comes free, but follows the noise level more than the pattern; reports draw it beside the measured recall."""

    most_searches: int = 4
    """Searches of a layer in a run, those for drift included, 1 or more."""

    block: int | tuple[int, int] = (128, 64)
    """Tokens of a block of queries and of keys, one number for both or a pair: 16, 32, 64, 128 or (128, 64). Smaller
    follows the pattern closer and costs more a token; (128, 64) reads every key for twice as many queries as 64 does
    and keeps as fine a choice among keys."""

    tile: bool = True
    """Visit the tokens of a video or picture tile by tile (4 x 4 x 4, or 8 x 8 in a picture), so that a block is near
    in space and time. False keeps the model's order."""

    min_tokens: int = 1024
    """Shorter attention is left alone, 1 or more."""

    min_gain: float = 0.05
    """Least gain of a denoiser call, as a share of its work, for which a layer is made sparse; 0 always does."""

    backend: str = "auto"
    """Which implementation of sparse attention runs: "auto", or one that `outpace doctor` lists."""

    def __post_init__(self) -> None:
        given = [name for name in TARGETS if getattr(self, name) is not None]
        object.__setattr__(self, "schedule", "/".join(map(str, read_densities(self.schedule))))
        given += ["schedule"] if self.schedule else []
        require(len(given) <= 1, f"give one target, not {' and '.join(given)}")
        for name, low, high in (("recall", 0.0, 1.0), ("density", 0.0, 1.0), ("error", 0.0, 10.0)):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), low, high)
                require(getattr(self, name) > 0, f"{name} must be above 0, not {getattr(self, name)!r}")
        if self.sparsity is not None:
            number("sparsity", self.sparsity, 0.0, 1.0)
            require(self.sparsity < 1, "sparsity 1 would leave nothing to attend to; give a number from 0 to below 1")
        one_of("per", self.per, ("row", "head"))
        for name in ("least", "most"):
            number(name, getattr(self, name), 0.0, 1.0)
        require(0 < self.most >= self.least, f"most must be above 0 and at least {self.least:g}, not {self.most!r}")
        given_searches: Any = self.searches
        alone = isinstance(given_searches, (int, float)) and not isinstance(given_searches, bool)
        searches: Any = (given_searches,) if alone else given_searches
        require(
            isinstance(searches, (tuple, list)) and len(searches) > 0,
            f"searches must list at least one share of the steps, such as (0.1, 0.5), not {searches!r}",
        )
        for share in searches:
            number("searches", share, 0.0, 1.0)
            require(share < 1, "a search at the end of the run would be of no use; give shares from 0 to below 1")
        require(list(searches) == sorted(set(searches)), f"searches must rise, not {tuple(searches)}")
        object.__setattr__(self, "searches", tuple(map(float, searches)))
        number("slack", self.slack, 0.0, 1.0)
        number("drift", self.drift, 0.0)
        whole("most_searches", self.most_searches, 1)
        for flag in ("head_adaptive", "fresh"):
            require(isinstance(getattr(self, flag), bool), f"{flag} must be true or false, not {getattr(self, flag)!r}")
        check_shared(self)

    @property
    def blocks(self) -> tuple[int, int]:
        """Tokens of a block of queries, and of one of keys."""
        return pair_of(self.block)

    @property
    def target(self) -> AdaSpaTarget:
        """The target in force."""
        for name in TARGETS:
            if getattr(self, name) is not None:
                return AdaSpaTarget(name=name, value=float(getattr(self, name)))
        return AdaSpaTarget(name="recall", value=0.99)

    @property
    def ranges(self) -> tuple[Densities, ...]:
        """The schedule, range by range."""
        return read_densities(self.schedule)

    @property
    def pattern(self) -> str:
        """Blocks are searched, not laid down."""
        return ""

    @property
    def exact(self) -> bool:
        """True where nothing may be left out, so that nothing needs to be searched for either."""
        target = self.target
        if self.schedule:
            return all(r.is_dense(layer) for r in self.ranges for layer in range(len(r.layers)))
        return (target.name, target.value) in (("sparsity", 0.0), ("recall", 1.0), ("density", 1.0))

    def part(self, shared: Shared) -> Part:
        from ..attention import AttentionEngine

        return AttentionEngine(self, shared)

    @classmethod
    def calibrate(
        cls,
        pipe: Any,
        prompts: Sequence[Any],
        *,
        saves: float = 0.4,
        looks: int = 4,
        trials: int = 6,
        block: int | tuple[int, int] = (128, 64),
        min_tokens: int = 1024,
        seed: int = 0,
        **call: Any,
    ) -> AdaSpa:
        """The densities by layer, head and noise level that keep the pictures of `pipe` best where so much attention is
        left out, or one recall for all of them where that keeps them better. Which blocks those are is still searched
        in every run.

        Args:
            pipe: a diffusers pipeline with a scheduler.
            prompts: to calibrate with, as the pipeline takes them; others than those that the result is judged by. Two
                to four are enough.
            saves: share of all attention that is left out over a run, above 0 and below 1, dense steps and the search
                counted.
            looks: steps at which errors are measured, and ranges of noise levels that densities are told apart in; each
                also costs a real run in which that range alone is sparse.
            trials: real runs in which ways to read what was measured are compared, and one recall for everything with
                them; 0 trusts it as it is.
            block: tokens of a block of queries and of keys.
            min_tokens: shorter attention is left alone.
            seed: of the first prompt's noise; each later prompt has the next.
            call: further arguments of the pipeline's call, such as num_inference_steps, height, guidance_scale.

        Raises: ConfigError for settings out of their range, or more saved than can be; UnsupportedModelError.
        """
        from ..calibration.attention import AttentionCalibration

        settings = AttentionCalibration(
            looks=looks, trials=trials, block=block, min_tokens=min_tokens, seed=seed, call=call
        )
        return settings.bench(pipe, prompts).saving(saves)

    @classmethod
    def paper(cls, sparsity: float = 0.8, *, searches: tuple[float, ...] = (0.2, 0.6)) -> AdaSpa:
        """The method as its authors run it.

        Args:
            sparsity: mean share of blocks left out; heads of high recall take (1 + sparsity) / 2, as many of low recall
                (3 sparsity - 1) / 2.
            searches: steps 10 and 30 of 50, as shares.
        """
        return cls(
            sparsity=sparsity,
            searches=searches,
            fresh=False,
            slack=0.0,
            block=64,
            tile=False,
            min_gain=0.0,
            min_tokens=1,
        )
