"""Successive halving: every candidate on few requests, the promising ones on twice as many, and so on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...errors import ConfigError
from ..contender import Request
from .candidate import Candidate, Deadline, Evaluate, Failure, Standing
from .target import Target

FIRST = 2
"""Requests of the first rung; each later one has twice as many in all."""

SHRINK = 3
"""How many times fewer candidates the next rung has."""

FLOOR = 8
"""A rung keeps at least this many, so that there are safe ones left to start certification from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One round of the search."""

    candidates: int
    requests: int
    """In all, those of earlier rungs included."""


@dataclass(kw_only=True, slots=True)
class Search:
    """What a search found."""

    standings: list[Standing]
    """Those of the last rung, the most wanted first among those that keep the target; then the others."""
    every: list[Standing]
    """Everything that was measured."""
    rungs: list[Rung] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Label of each candidate that could not run, with the reason."""
    untried: int = 0
    """Candidates that the budget left no time for."""
    complete: bool = True
    """False where the budget ended the search before its last rung."""


def search(
    candidates: Sequence[Candidate],
    requests: Sequence[Request],
    evaluate: Evaluate,
    *,
    target: Target,
    risk: float,
    deadline: Deadline | None = None,
    progress: Callable[[str, int], object] = lambda label, requests: None,
) -> Search:
    """Measure candidates on more and more of `requests`, keeping the promising third each time.

    Promising is first what keeps the target for all but half of `risk` of the requests and is wanted most; then what
    keeps it with more room, evenly over the front of margin and worth, because certification begins with the safest;
    then what nearly keeps it. Within a rung the cheapest go first.

    Args:
        evaluate: called with the requests that a candidate has not seen yet.
        deadline: no measurement begins after it; what was measured by then is ranked.
        progress: told label and number of requests before each measurement.

    Raises: ConfigError where there is nothing to search.
    """
    if not candidates or not requests:
        raise ConfigError("a search needs at least one candidate and one request")
    deadline = deadline or Deadline(None)
    standings = {c.name: Standing(candidate=c) for c in candidates}
    found = Search(standings=[], every=[])
    alive = list(standings.values())
    for size in rung_sizes(len(requests)):
        reached: list[Standing] = []
        for standing in sorted(alive, key=lambda s: s.cost):
            if deadline.over:
                found.complete = False
                break
            fresh = requests[len(standing.scores) : size]
            progress(standing.candidate.label, len(fresh))
            try:
                standing.scores += evaluate(standing.candidate, fresh)
            except Failure as error:
                found.failed[standing.candidate.label] = str(error)
                continue
            reached.append(standing)
        found.rungs.append(Rung(candidates=len(reached), requests=size))
        if not found.complete:
            break
        keep = max(FLOOR, math.ceil(len(reached) / SHRINK))
        alive = reached if size == len(requests) else survivors(reached, keep, target=target, risk=risk)
    failed = set(found.failed)
    found.every = [s for s in standings.values() if s.scores and s.candidate.label not in failed]
    found.untried = sum(not s.scores and s.candidate.label not in failed for s in standings.values())
    ranked = alive if found.complete else [s for s in alive if s.scores and s.candidate.label not in failed]
    found.standings = sorted(ranked, key=lambda s: rank(s, target, risk), reverse=True)
    return found


def rung_sizes(requests: int) -> list[int]:
    """How many requests each rung has in all: 2, 4, 8, ... up to every one.

    >>> rung_sizes(16), rung_sizes(5), rung_sizes(1)
    ([2, 4, 8, 16], [2, 5], [1])
    """
    sizes = [min(FIRST, requests)]
    while sizes[-1] < requests:
        # A last rung that adds less than half of its requests would cost a selection and teach little.
        sizes.append(2 * sizes[-1] if 3 * sizes[-1] <= requests else requests)
    return sizes


def rank(standing: Standing, target: Target, risk: float) -> tuple[bool, float]:
    """Higher is more promising: keeping the target comes first, then worth; of those that miss it, nearness."""
    margin = standing.margin(target, risk / 2)
    return (True, standing.worth(target)) if margin >= 0 else (False, margin)


def survivors(standings: Sequence[Standing], keep: int, *, target: Target, risk: float) -> list[Standing]:
    """The `keep` most promising, half of them for worth and half for safety, and those that are never dropped."""
    ranked = sorted(standings, key=lambda s: rank(s, target, risk), reverse=True)
    feasible = [s for s in ranked if rank(s, target, risk)[0]]
    chosen = feasible[: math.ceil(keep / 2)]
    chosen += spread([s for s in safe_front(feasible, target, risk) if s not in chosen], keep - len(chosen))
    chosen += [s for s in ranked if s not in chosen][: max(0, keep - len(chosen))]
    return chosen + [s for s in standings if s.candidate.kept and s not in chosen]


def safe_front(standings: Sequence[Standing], target: Target, risk: float) -> list[Standing]:
    """Those of which no other has both more margin and more worth, the safest first."""
    kept: list[Standing] = []
    for standing in sorted(standings, key=lambda s: (-s.worth(target), -s.margin(target, risk / 2))):
        if not kept or standing.margin(target, risk / 2) > kept[-1].margin(target, risk / 2):
            kept.append(standing)
    return kept[::-1]


def spread(items: Sequence[Standing], count: int) -> list[Standing]:
    """`count` of `items` at even distances, the first and the last among them; all where there are not more."""
    if count >= len(items):
        return list(items)
    if count < 2:
        return list(items[:count])
    places = {round(i * (len(items) - 1) / (count - 1)) for i in range(count)}
    return [items[place] for place in sorted(places)]
