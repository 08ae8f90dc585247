"""What changed from one set of results to another: are they comparable, and which contender got better or worse.

Requests with the same prompt and seed are compared with each other, so that what is hard in both does not hide what
changed. A change is significant where the sign-flip test of these pairs says so at 5 %, adjusted for the number of
contenders (see paired.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .intervals import percentile_interval, resamples
from .paired import paired_tests
from .results import SCHEMA

LEVEL = 0.05
"""Adjusted p-value below which a change is significant."""

_SETTING_UP = ("pipeline", "environment", "study")
_ABOUT_THE_OCCASION = {"load average", "commit", "samples"}
"""What differs between any two runs, or is told by the requests."""

_Both = list[tuple[dict[str, Any], dict[str, Any]]]
"""A contender as it is in either set of results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One quantity of one contender, in both sets of results."""

    contender: str
    quantity: str
    """Computed speed-up, wall speed-up, PSNR to plain, check: colour; a higher one is better."""
    unit: str
    before: float
    after: float
    value: float
    """after - before, so above 0 is better."""
    low: float
    high: float
    """95 % bootstrap interval of `value`, over pairs of requests."""
    n: int
    """Pairs of requests."""
    p_adjusted: float

    @property
    def significant(self) -> bool:
        return self.p_adjusted < LEVEL

    @property
    def worse(self) -> bool:
        """True where it got significantly worse."""
        return self.significant and self.value < 0

    @property
    def size(self) -> float:
        """The change as a share of what it was: what sorts quantities of different units."""
        return abs(self.value) / max(abs(self.before), 1e-12)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Two sets of results side by side."""

    setting: tuple[tuple[str, str, str], ...]
    """Everything that differs around the contenders: (what, in A, in B)."""
    comparable: bool
    """False where pipeline, steps or all requests differ, so that changes say nothing of the contenders."""
    requests: int
    """Prompts and seeds that both have."""
    changes: tuple[Change, ...]
    """Largest first, significant ones before all others."""
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]
    """Contenders that ran in A and failed in B, with the error."""
    mended: tuple[str, ...]
    """Contenders that failed in A and ran in B."""

    @property
    def worse(self) -> bool:
        """True where something got significantly worse, or no longer runs."""
        return bool(self.broken) or any(change.worse for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        changes = [asdict(c) | {"significant": c.significant, "worse": c.worse} for c in self.changes]
        return asdict(self) | {"changes": changes, "worse": self.worse}


def diff(before: dict[str, Any], after: dict[str, Any]) -> Difference:
    """Compare two sets of results, contender by contender, on the requests that both have.

    Args:
        before, after: what `report.load_results` read.

    Raises: InputError for results of another schema.
    """
    for results in (before, after):
        if results.get("schema") != SCHEMA:
            raise InputError(f"these results have schema {results.get('schema')!r}; this outpace reads schema {SCHEMA}")
    shared = _shared(before, after)
    old, new = ({c["name"]: c for c in r["contenders"]} for r in (before, after))
    both = [(old[n], new[n]) for n in old if n in new and old[n]["error"] is None and new[n]["error"] is None]
    changes = [c for q in _quantities(before) for c in _changes(q, before, after, both, shared)]
    same = all(before["pipeline"].get(key) == after["pipeline"].get(key) for key in ("name", "class", "steps"))
    return Difference(
        setting=tuple(_setting(before, after, both, len(shared))),
        comparable=bool(shared) and same,
        requests=len(shared),
        changes=tuple(sorted(changes, key=lambda c: (not c.significant, -c.size))),
        only_before=tuple(name for name in old if name not in new),
        only_after=tuple(name for name in new if name not in old),
        broken=tuple((n, new[n]["error"]) for n in old if n in new and not old[n]["error"] and new[n]["error"]),
        mended=tuple(n for n in old if n in new and old[n]["error"] and not new[n]["error"]),
    )


def _shared(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[int, int]]:
    """Indices, in both, of the requests with the same prompt and seed."""
    places = {(str(r["prompt"]), r["seed"]): r["index"] for r in after["requests"]}
    asked = [(r["index"], (str(r["prompt"]), r["seed"])) for r in before["requests"]]
    return [(index, places[request]) for index, request in asked if request in places]


def _setting(before: dict[str, Any], after: dict[str, Any], both: _Both, shared: int) -> Iterator[tuple[str, str, str]]:
    """What differs around the contenders: what of the pipeline, how many requests, which versions and hardware."""
    for part in _SETTING_UP:
        old, new = before[part], after[part]
        for key in [key for key in {**old, **new} if key not in _ABOUT_THE_OCCASION]:
            if old.get(key) != new.get(key):
                yield f"{part}: {key}", str(old.get(key, "not said")), str(new.get(key, "not said"))
    counts = len(before["requests"]), len(after["requests"])
    if set(counts) != {shared}:
        yield "requests", f"{counts[0]}, of which {shared} shared", f"{counts[1]}, of which {shared} shared"
    for old, new in both:
        if old["settings"] != new["settings"]:
            yield f"{old['name']}: settings", str(old["settings"]), str(new["settings"])
        usual = before["pipeline"]["steps"], after["pipeline"]["steps"]
        if old["steps"] != new["steps"] and (old["steps"], new["steps"]) != usual:
            yield f"{old['name']}: steps", str(old["steps"]), str(new["steps"])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Quantity:
    """How one quantity is read off a contender, and summed up over requests."""

    name: str
    unit: str
    read: Callable[[dict[str, Any], dict[str, Any]], dict[int, float]]
    """(results, contender) -> one number for each request that has it, by its index."""
    sum_up: Callable[[np.ndarray], np.ndarray]
    """From numbers [..., requests] to one for each leading index."""


def _mean(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=-1)


def _harmonic_mean(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 / x).mean(axis=-1)


def _median(x: np.ndarray) -> np.ndarray:
    return np.median(x, axis=-1)


def _quantities(before: dict[str, Any]) -> Iterator[_Quantity]:
    # Work of all requests together is what a speed-up divides by: the harmonic mean of those of single requests.
    yield _Quantity(name="computed speed-up", unit="x", read=_computed, sum_up=_harmonic_mean)
    yield _Quantity(name="wall speed-up", unit="x", read=_timed, sum_up=_median)
    headline = before["study"]["headline"]
    label, unit = (before["metrics"][headline][key] for key in ("label", "unit"))
    for reference in before["study"]["references"]:

        def likeness(_: Any, contender: dict[str, Any], reference: str = reference) -> dict[int, float]:
            values = {s["index"]: s["metrics"].get(reference, {}).get(headline) for s in contender["samples"]}
            return {index: value for index, value in values.items() if value is not None}

        yield _Quantity(name=f"{label} to {reference}", unit=unit, read=likeness, sum_up=_mean)
    for key in dict.fromkeys(key for c in before["contenders"] for key in (c.get("checks") or {})):

        def checked(_: Any, contender: dict[str, Any], key: str = key) -> dict[int, float]:
            return {s["index"]: s["checks"][key] for s in contender["samples"] if key in (s["checks"] or {})}

        yield _Quantity(name=f"check: {key}", unit="", read=checked, sum_up=_mean)


def _computed(results: dict[str, Any], contender: dict[str, Any]) -> dict[int, float]:
    """Work of the plain pipeline over that of the contender; blocks where no attention was counted."""
    plain = next(c for c in results["contenders"] if c["name"] == results["study"]["plain"])
    whole, spent = ({s["index"]: s.get("work", s["blocks"]) for s in c["samples"]} for c in (plain, contender))
    return {index: whole[index] / work for index, work in spent.items() if work > 0}


def _timed(results: dict[str, Any], contender: dict[str, Any]) -> dict[int, float]:
    """Time of the plain pipeline over that of the contender: the first requests, round after round."""
    pairs = (contender.get("time") or {}).get("pairs", [])
    ratios: dict[int, list[float]] = {}
    for place, pair in enumerate(pairs):
        request = results["requests"][place % results["study"]["timed"]]
        ratios.setdefault(request["index"], []).append(pair["plain"]["wall"] / pair["contender"]["wall"])
    return {index: float(np.median(found)) for index, found in ratios.items()}


def _changes(
    quantity: _Quantity, before: dict[str, Any], after: dict[str, Any], both: _Both, shared: list[tuple[int, int]]
) -> list[Change]:
    """The changes of one quantity in every contender, tested together."""
    paired: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for old, new in both:
        olds, news = quantity.read(before, old), quantity.read(after, new)
        pairs = [(olds[a], news[b]) for a, b in shared if a in olds and b in news]
        if pairs:
            paired[new["name"]] = (np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))
    tests = paired_tests({name: b - a for name, (a, b) in paired.items()})
    labels = {new["name"]: new["label"] for _, new in both}
    changes = []
    for name, (a, b) in paired.items():
        draws = resamples(len(a))
        low, high = percentile_interval(quantity.sum_up(b[draws]) - quantity.sum_up(a[draws]))
        old, new = float(quantity.sum_up(a)), float(quantity.sum_up(b))
        changes.append(
            Change(
                contender=labels[name],
                quantity=quantity.name,
                unit=quantity.unit,
                before=old,
                after=new,
                value=new - old,
                low=low,
                high=high,
                n=len(a),
                p_adjusted=tests[name]["p_adjusted"],
            )
        )
    return changes


def table(found: Difference, most: int = 20) -> str:
    """The difference in Markdown: what differs around the contenders first, then every change worth a line.

    Args:
        most: lines for changes that are not significant; the significant ones are all shown.
    """
    lines = (
        [] if found.comparable else ["**Not comparable**: another pipeline, other steps, or no request in common.", ""]
    )
    if found.setting:
        lines += ["| differs | A | B |", "| --- | --- | --- |"]
        lines += [f"| {what} | {old} | {new} |" for what, old, new in found.setting] + [""]
    moved = [change for change in found.changes if change.value]
    sure = [change for change in moved if change.significant]
    shown = sure + [change for change in moved if not change.significant][:most]
    if shown:
        lines += [
            "| contender | | A | B | change | requests | p | |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        lines += [_line(change) for change in shown] + [""]
    lines += [f"{name} failed in B: {error}" for name, error in found.broken]
    for words, names in (
        ("ran in B only", found.mended),
        ("in A alone", found.only_before),
        ("in B alone", found.only_after),
    ):
        lines += [f"{words}: {', '.join(names)}"] if names else []
    worse = sum(change.worse for change in sure)
    hidden = f"; {len(moved) - len(shown)} smaller ones are not shown" if len(shown) < len(moved) else ""
    lines.append(
        f"{found.requests} requests in common. Of {len(found.changes)} quantities {len(moved)} changed, {len(sure)} "
        f"significantly: {len(sure) - worse} better, {worse} worse{hidden}."
    )
    return "\n".join(lines)


def _line(change: Change) -> str:
    verdict = ("worse" if change.worse else "better") if change.significant else ""
    unit = f" {change.unit}".rstrip()
    spread = f" ({change.low:+.3g} to {change.high:+.3g})" if change.n > 1 else ""  # one request has none
    return (
        f"| {change.contender} | {change.quantity} | {change.before:.3g} | {change.after:.3g}{unit} "
        f"| {change.value:+.3g}{spread} | {change.n} "
        f"| {change.p_adjusted:.2g} | {verdict} |"
    )
