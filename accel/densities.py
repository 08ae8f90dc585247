"""A schedule of densities: how many of its blocks every head keeps, by layer and noise level, as one short text.

A density is written as one letter, a decibel each: `a` keeps everything, `d` half, `g` a quarter, `k` a tenth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from ..errors import ConfigError
from .ranges import number, require

LETTERS = "abcdefghijklmnopqrst"
"""Each keeps 10^(-1/10) of what the one before does; the last keeps 1.3 %."""

_RANGE = re.compile(r"([^:]+?)\.\.([^:]+?):([a-t]+(?:-[a-t]+)*)")


def density_of(letter: str) -> float:
    """What a letter keeps.

    >>> [round(density_of(letter), 3) for letter in "adgk"]
    [1.0, 0.501, 0.251, 0.1]
    """
    return 10.0 ** (-LETTERS.index(letter) / 10.0)


def letter_of(density: float) -> str:
    """The letter nearest to a density above 0."""
    return LETTERS[min(len(LETTERS) - 1, max(0, round(-10.0 * math.log10(density))))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Densities:
    """What is kept at some noise levels.

    Raises: ConfigError for levels out of their range, or layers of different numbers of heads.
    """

    low: float
    """Noise level above which it holds, 0 to 1; 0 is the finished picture."""

    high: float
    """Noise level up to which it holds, `low` to 1."""

    layers: tuple[str, ...]
    """Of every layer, a letter for each of its heads."""

    def __post_init__(self) -> None:
        number("the lowest noise level of a range", self.low, 0.0, 1.0)
        number("the highest noise level of a range", self.high, self.low, 1.0)
        heads = sorted({len(layer) for layer in self.layers})
        require(len(heads) == 1, f"every layer needs as many letters as it has heads, not {heads} of them")

    def __str__(self) -> str:
        return f"{self.low:.6g}..{self.high:.6g}:{'-'.join(self.layers)}"

    def of(self, layer: int) -> tuple[float, ...]:
        """The density of every head of a layer."""
        return tuple(map(density_of, self.layers[layer]))

    def is_dense(self, layer: int) -> bool:
        """Whether a layer keeps everything."""
        return set(self.layers[layer]) == {LETTERS[0]}


def read_densities(given: str | Sequence[Densities]) -> tuple[Densities, ...]:
    """The ranges of a schedule, the noisiest first, however it is given.

    Raises: ConfigError where it cannot be read, ranges overlap, or they differ in their layers and heads.
    """
    return _spelt(given) if isinstance(given, str) else _checked(given)


@lru_cache(maxsize=64)
def _spelt(text: str) -> tuple[Densities, ...]:
    ranges = []
    for part in text.split("/") if text.strip() else []:
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise ConfigError(
                f"cannot read '{part}' in a schedule of densities; write LOW..HIGH:LAYER-LAYER with a letter for each "
                "head, as in 0..0.9:ad-gg"
            )
        low, high, layers = found.groups()
        try:
            levels = float(low), float(high)
        except ValueError as error:
            raise ConfigError(f"the range '{part}' holds what is no number: {error}") from error
        ranges.append(Densities(low=levels[0], high=levels[1], layers=tuple(layers.split("-"))))
    return _checked(ranges)


def _checked(given: Sequence[Densities]) -> tuple[Densities, ...]:
    ranges = sorted(given, key=lambda r: -r.high)
    shapes = {(len(r.layers), len(r.layers[0])) for r in ranges}
    require(len(shapes) <= 1, "every range of a schedule of densities needs the same layers and heads")
    for before, after in pairwise(ranges):
        require(after.high <= before.low, f"the ranges {before.low:g}.. and ..{after.high:g} overlap")
    return tuple(ranges)


def range_at(ranges: Sequence[Densities], level: float) -> int | None:
    """Which range holds a noise level; None where none does, so that everything is kept."""
    return next((i for i, r in enumerate(ranges) if r.low < level <= r.high or (r.low == 0.0 == level)), None)
