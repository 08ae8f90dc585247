"""What a user will accept: "psnr>=30", "speedup>=3", "time<=60%", one clause or several that must all be kept."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import ConfigError
from ...registry import suggestion
from ..metrics import METRICS

COSTS = {"blocks": "share of the plain pipeline's work", "time": "share of the plain pipeline's time"}
"""What a setting spends, by the name a clause gives it; less is better, and 1 is the plain pipeline."""

GAINS = {"speedup": "number of times that the plain pipeline's work is more"}
"""The other way round: more is better, and 1 is the plain pipeline."""

_SPELT = {"latency": "time", "compute": "blocks", "work": "blocks"}
_FORM = re.compile(r"\s*([A-Za-z][\w-]*)\s*(>=|<=|≥|≤)\s*([^\s%A-Za-z]+(?:[eE][+-]?\d+)?)\s*(%|[A-Za-z]+)?\s*")
_SIGN = {"≥": ">=", "≤": "<="}


def is_higher_better(name: str) -> bool:
    """True where more of a number that a clause can bound is better."""
    return name in GAINS or (name in METRICS and METRICS[name].better == "higher")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clause:
    """One bound on one number of a request.

    Raises: ConfigError for an unknown name, a bound that is not finite, or one that asks for the worse side.
    """

    name: str
    """A metric of METRICS that every request has, mostly to the plain pipeline's answer, or one of COSTS or GAINS."""

    bound: float
    """A request keeps the clause where its value is on the better side of this, or on it."""

    def __post_init__(self) -> None:
        known = [name for name, metric in METRICS.items() if metric.kind != "set"]
        known += [*COSTS, *GAINS]
        if self.name in METRICS and self.name not in known:
            raise ConfigError(f"--target: {self.name} is a distance of whole sets; name one that each request has")
        if self.name not in known:
            raise ConfigError(f"--target: there is no '{self.name}' to measure{suggestion(self.name, known)}")
        if isinstance(self.bound, bool) or not math.isfinite(self.bound):
            raise ConfigError(f"--target: the bound of {self.name} must be a finite number, not {self.bound}")
        best = METRICS[self.name].best if self.name in METRICS else None
        if best is not None and (self.bound > best if self.higher else self.bound < best):
            raise ConfigError(
                f"--target: no picture reaches {self.name} {self.bound:g}: {best:g} is that of the same picture"
            )
        if best is not None and self.higher and self.bound <= 0:
            raise ConfigError(f"--target: every picture keeps {self.name} >= {self.bound:g}; write a bound above 0")
        if self.name in GAINS and self.bound < 1:
            raise ConfigError(
                f"--target: {self.name} is the {GAINS[self.name]}, 1 or more, not {self.bound:g}; for a third of the "
                f"work write '{self.name}>=3'"
            )
        if self.name in COSTS and not 0 < self.bound <= 1:
            raise ConfigError(
                f"--target: {self.name} is a {COSTS[self.name]}, above 0 and at most 1, not {self.bound:g}; "
                f"for sixty percent write '{self.name}<=60%'"
            )

    @property
    def higher(self) -> bool:
        """True where more is better."""
        return is_higher_better(self.name)

    def margin(self, value: float | None) -> float:
        """How far `value` is on the better side, as a share of the bound: below 0 is a miss, None one by infinity."""
        if value is None or math.isnan(value):
            return -math.inf
        distance = value - self.bound if self.higher else self.bound - value
        return distance / max(abs(self.bound), 1e-9)

    def __str__(self) -> str:
        return f"{self.name}{'>=' if self.higher else '<='}{self.bound!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Clauses that a request must keep all of.

    Raises: ConfigError where there is none, or two bound the same number.
    """

    clauses: tuple[Clause, ...]

    def __post_init__(self) -> None:
        if not self.clauses:
            raise ConfigError('nothing to aim at: give --target, such as --target "psnr>=30"')
        names = [clause.name for clause in self.clauses]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"--target bounds {', '.join(twice)} twice; keep the stricter one")

    @property
    def names(self) -> list[str]:
        return [clause.name for clause in self.clauses]

    @property
    def fidelity(self) -> bool:
        """True where a clause bounds fidelity. The cheapest setting is then wanted; without, the most faithful."""
        return any(clause.name in METRICS for clause in self.clauses)

    def margin(self, scores: Mapping[str, float | None]) -> float:
        """The least margin over the clauses: 0 or more where the request keeps the target."""
        return min(clause.margin(scores.get(clause.name)) for clause in self.clauses)

    def missed(self, scores: Mapping[str, float | None]) -> bool:
        return self.margin(scores) < 0

    def __str__(self) -> str:
        return " and ".join(map(str, self.clauses))


def parse_target(texts: Sequence[str]) -> Target:
    """The target that `texts` spell, one clause each.

    >>> str(parse_target(["PSNR >= 30 dB", "latency <= 60 %"]))
    'psnr>=30.0 and time<=0.6'

    Raises: ConfigError where one is not of that form, bounds the wrong side, or names nothing measured.
    """
    return Target(clauses=tuple(parse_clause(text) for text in texts))


def parse_clause(text: str) -> Clause:
    """The clause that `text` spells. Raises: as `parse_target`."""
    found = _FORM.fullmatch(text)
    number = _number(found[3]) if found else None
    if found is None or number is None:
        raise ConfigError(f"--target '{text}' cannot be read; write it as psnr>=30, speedup>=3 or time<=60%")
    word, sign, unit = found[1].lower().replace("-", "_"), _SIGN.get(found[2], found[2]), found[4] or ""
    name = _SPELT.get(word, word)
    if unit == "%" and name not in GAINS:
        number /= 100
    elif (
        unit
        and not (name in GAINS and unit == "x")
        and (name not in METRICS or unit.lower() != METRICS[name].unit.lower())
    ):
        raise ConfigError(f"--target '{text}': {name} is not counted in '{unit}'; leave it out")
    clause = Clause(name=name, bound=number)
    if (sign == ">=") is not clause.higher:
        better = "higher" if clause.higher else "lower"
        raise ConfigError(f"--target '{text}' asks for the worse side: of {name}, {better} is better; write {clause}")
    return clause


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
