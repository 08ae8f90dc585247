"""The composition matrix: every combination of parts on the same requests, and what each part has in the outcome.

Arithmetic on the results of a comparison in which every combination took part; nothing is run. What a part has in an
error or a gain is its Shapley value: its mean effect over every order in which the parts can be added, exact, since
the matrix holds every subset of a combination. Values of the parts sum to the value of the combination.

Source: Shapley, "A Value for n-Person Games", Contributions to the Theory of Games II, 1953.

Shapes: R requests; D draws, the first of all requests once, the others bootstrap resamples of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations as subsets_of
from typing import Any, TypeVar

import numpy as np

from ..registry import Registry
from .intervals import percentile_interval, resamples

TARGETS = (30.0, 35.0, 40.0, 45.0, 50.0)
"""PSNR to the plain pipeline, in dB, for which the best combination is named."""

Player = TypeVar("Player", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixAxis:
    """One part that a combination has in one of several ways, or goes without."""

    name: str
    label: str
    choices: dict[str, str]
    """Name and label of each way; going without is not among them."""

    reason: str | None = None
    """Why there are none on this pipeline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """One cell of the matrix."""

    parts: dict[str, str]
    """{axis: choice} of the parts that are on; empty is the plain pipeline."""

    label: str
    contender: str
    """Who ran it."""

    method: str = ""
    """As the command line spells it after `--method`."""

    refused: str | None = None
    """Why the parts cannot work together; nothing was run then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One quantity that is divided among parts; nothing for the plain pipeline."""

    label: str
    read: Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], np.ndarray | None]
    """`read(contender, plain, study)` [D], None where it was not measured."""

    unit: str = ""
    digits: int = 2
    error: bool = False
    """Amounts that grow like errors do: also compared with the root of the sum of squares."""

    factor: bool = False
    """Logarithms of factors, shown as factors."""

    paired: bool = False
    """Drawn over timed pairs, not over prompts."""


ACCOUNTS: Registry[Account] = Registry("account of the matrix")


def drawn(n: int) -> np.ndarray:
    """Indices [D, n]: all once, then the bootstrap's."""
    return np.concatenate([np.arange(n)[None], resamples(n)])


def read_metric(contender: Mapping[str, Any], reference: str, metric: str) -> np.ndarray | None:
    """The mean of a metric over each draw [D]; None where a sample has no value."""
    values = [s["metrics"].get(reference, {}).get(metric) for s in contender["samples"]]
    return None if None in values else np.asarray(values, dtype=np.float64)[drawn(len(values))].mean(axis=1)


def error_of_latents(contender: Any, plain: Any, study: Any) -> np.ndarray | None:
    """Relative L2 distance of the latents from the plain pipeline's."""
    return read_metric(contender, plain["name"], "latent_l2")


def decibels_lost(contender: Any, plain: Any, study: Any) -> np.ndarray | None:
    """How much further from the converged solution than the plain pipeline is.

    Not the distance from the plain pipeline, of which the plain pipeline itself has none in dB.
    """
    if study["converged"] is None:
        return None
    own, of_plain = (read_metric(c, study["converged"], study["headline"]) for c in (contender, plain))
    return None if own is None or of_plain is None else of_plain - own


def gain_in_compute(contender: Any, plain: Any, study: Any) -> np.ndarray | None:
    """Logarithm of the plain pipeline's work over the contender's, all requests together."""
    draws = drawn(len(plain["samples"]))
    own, of_plain = (np.array([s["work"] for s in c["samples"]])[draws].sum(axis=1) for c in (contender, plain))
    return np.log(of_plain / own) if own.all() else None


def gain_in_time(contender: Any, plain: Any, study: Any) -> np.ndarray | None:
    """Logarithm of the median ratio of paired times."""
    if not contender["time"]:
        return None
    ratios = np.array([pair["plain"]["wall"] / pair["contender"]["wall"] for pair in contender["time"]["pairs"]])
    return np.log(np.median(ratios[drawn(len(ratios))], axis=1))


ACCOUNTS.add(
    "latents",
    Account(label="error of the latents, to the plain pipeline", read=error_of_latents, digits=4, error=True),
)
ACCOUNTS.add("decibels", Account(label="PSNR lost, to the converged solution", read=decibels_lost, unit="dB"))
ACCOUNTS.add("compute", Account(label="speed-up in compute", read=gain_in_compute, unit="x", factor=True))
ACCOUNTS.add("time", Account(label="speed-up by the clock", read=gain_in_time, unit="x", factor=True, paired=True))


def build_matrix(
    axes: Sequence[MatrixAxis], combinations: Sequence[Combination], results: Mapping[str, Any]
) -> dict[str, Any]:
    """results["matrix"]: the axes, a row for each combination with what its parts have in it, the best per target.

    Args:
        combinations: all of them, the plain pipeline among them.
        results: what `build_results` made of a study in which every combination that was not refused took part.
    """
    held = {c["name"]: c for c in results["contenders"]}
    rows = [row_of(combination, held, results["study"]) for combination in combinations]
    matrix = Matrix(rows=rows, held=held, study=results["study"])
    for row in rows:
        if len(row["parts"]) > 1 and row["refused"] is None:
            row["attribution"] = {name: matrix.attribute(row["parts"], account) for name, account in ACCOUNTS.items()}
    described = ("label", "unit", "digits", "error", "factor", "paired")
    return {
        "axes": [asdict(axis) for axis in axes],
        "accounts": {name: {key: getattr(a, key) for key in described} for name, a in ACCOUNTS.items()},
        "combinations": rows,
        "best": best_for_targets(rows, results),
    }


def row_of(combination: Combination, held: Mapping[str, Any], study: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured of one combination; a contender that failed is refused with its error."""
    row = asdict(combination)
    contender = held.get(combination.contender)
    if contender is None:
        return row
    if contender["error"]:
        return row | {"refused": contender["error"]}
    keys = (study["headline"], "latent_l2")
    distances = {ref: {k: table.get(k) for k in keys} for ref, table in contender["metrics"].items()}
    measured = {key: contender.get(key) for key in ("speedup", "memory")}
    time = contender["time"] and contender["time"]["wall"]
    return row | measured | {"time": time, "metrics": distances}


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """The measured combinations, found by their parts."""

    rows: Sequence[Mapping[str, Any]]
    held: Mapping[str, Any]
    study: Mapping[str, Any]
    _read: dict[Any, np.ndarray | None] = field(default_factory=dict)

    def value(self, parts: Mapping[str, str], account: Account) -> np.ndarray | None:
        """An account's value [D] for a combination; zeros for the plain pipeline; None where it is missing."""
        key = (account.label, frozenset(parts.items()))
        if key not in self._read:
            row = next((r for r in self.rows if r["parts"] == parts and r["refused"] is None), None)
            plain = self.held[self.study["plain"]]
            if not parts:
                self._read[key] = np.zeros(1)
            else:
                self._read[key] = account.read(self.held[row["contender"]], plain, self.study) if row else None
        return self._read[key]

    def attribute(self, parts: Mapping[str, str], account: Account) -> dict[str, Any] | None:
        """What each part has in a combination's account: {"total", "parts", "shares", "sum", ...} with intervals.

        Returns: "sum" is what the parts come to one by one, "over_sum" what the combination has beyond that, and for
        errors the same with the root of the sum of squares; None where a subset of the parts has no value.
        """
        found = {
            frozenset(chosen): self.value({axis: parts[axis] for axis in chosen}, account)
            for size in range(len(parts) + 1)
            for chosen in subsets_of(parts, size)
        }
        values = {chosen: value for chosen, value in found.items() if value is not None}
        if len(values) < len(found):
            return None
        total = values[frozenset(parts)]
        owed = shapley(list(parts), values)
        alone = [values[frozenset((axis,))] for axis in parts]
        added = np.sum(alone, axis=0)
        entry: dict[str, Any] = {
            "total": interval(total),
            "parts": {axis: interval(value) for axis, value in owed.items()},
            "shares": shares(owed, total),
            "sum": interval(added),
            "over_sum": interval(total - added),
        }
        if account.error:
            root = np.sqrt(np.sum(np.square(alone), axis=0))
            entry |= {"quadrature": interval(root), "over_quadrature": interval(total - root)}
            entry["adds"] = how_errors_add(entry["over_sum"], entry["over_quadrature"])
        return entry


def shapley(players: Sequence[Player], values: Mapping[frozenset[Player], Any]) -> dict[Player, Any]:
    """What each player has in the value of all of them together, numbers or arrays.

    Args:
        values: of every subset of the players, the empty one too.
    """
    n = len(players)
    owed: dict[Player, Any] = {}
    for player in players:
        others = [p for p in players if p != player]
        owed[player] = sum(
            math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            * (values[frozenset((*before, player))] - values[frozenset(before)])
            for size in range(n)
            for before in subsets_of(others, size)
        )  # fmt: skip
    return owed


def interval(values_D: np.ndarray) -> dict[str, Any]:
    """{"value", "low", "high"}; no range where drawing again changes nothing, as with a single request."""
    value, draws = float(values_D[0]), values_D[1:]
    if not np.ptp(draws) > 0:
        return {"value": value, "low": None, "high": None}
    low, high = percentile_interval(draws)
    return {"value": value, "low": low, "high": high}


def shares(owed: Mapping[str, np.ndarray], total: np.ndarray) -> dict[str, Any] | None:
    """Each part's share of the total; None where the total may be nothing, of which there are no shares."""
    whole = interval(total)
    least = whole["value"] if whole["low"] is None else whole["low"]
    if least <= 0 or total.min() <= 0:
        return None
    return {axis: interval(value / total) for axis, value in owed.items()}


def how_errors_add(over_sum: Mapping[str, Any], over_quadrature: Mapping[str, Any]) -> str:
    """How the error of a combination stands to those of its parts: as their sum, as independent errors, or else."""

    def side(margin: Mapping[str, Any]) -> int:
        low = margin["value"] if margin["low"] is None else margin["low"]
        high = margin["value"] if margin["high"] is None else margin["high"]
        return (low > 0) - (high < 0)

    beside_sum, beside_root = side(over_sum), side(over_quadrature)
    if beside_sum > 0:
        return "more than their sum"
    if beside_root < 0:
        return "less than independent errors"
    if beside_sum == 0:
        return "their sum" if beside_root > 0 else "their sum or independent errors alike"
    return "between independent errors and their sum" if beside_root > 0 else "independent errors"


def best_for_targets(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each of TARGETS the fastest combination that surely meets it: {"target", "by", "parts", ..., "rival"}.

    Surely: the lower end of the 95 % interval of the mean. Fastest by the clock, or in compute where a combination was
    not timed. "parts" is empty where nothing is faster than the plain pipeline; "rival" is a contender from outside the
    matrix that meets the target and is faster still.
    """
    study = results["study"]
    measured = [row for row in rows if row["parts"] and row["refused"] is None]
    inside = {row["contender"] for row in rows} | set(study["references"])
    others = [c for c in results["contenders"] if c["name"] not in inside and not c["error"]]
    by = "time" if measured and all(row["time"] for row in measured) else "compute"
    found = []
    for target in TARGETS:
        runs = [run for row in measured if (run := meeting(row, target, by, study))]
        best = max(runs, key=lambda run: run["times"], default=None)
        if best is None or best["times"] <= 1:
            plain = next(row for row in rows if not row["parts"])
            best = {key: plain[key] for key in ("label", "method", "parts", "contender")} | {"times": 1.0, "low": None}
        rivals = [
            run | {"label": c["label"]}
            for c in others
            if (run := meeting({**c, "time": c["time"] and c["time"]["wall"]}, target, by, study))
        ]
        ahead = max((run for run in rivals if run["times"] > best["times"]), key=lambda r: r["times"], default=None)
        rival = ahead and {key: ahead[key] for key in ("label", "times", "low")}
        found.append({"target": target, "by": by, **best, "rival": rival})
    return found


def meeting(row: Mapping[str, Any], target: float, by: str, study: Mapping[str, Any]) -> dict[str, Any] | None:
    """How fast a run is that meets `target`, None for one that does not; "low" is its surely kept fidelity."""
    quality = (row["metrics"].get(study["plain"]) or {}).get(study["headline"])
    speed = row["time"] if by == "time" else row["speedup"]
    if not quality or not speed or quality["low"] < target:
        return None
    named = {key: row.get(key) for key in ("label", "method", "parts", "contender")}
    return named | {"times": speed["value"], "low": quality["low"]}
