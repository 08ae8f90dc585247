"""The search: who survives, what it spends, and that a budget, a failure or an interruption ends nothing badly."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from outpace.errors import ConfigError
from outpace.evaluation import Request
from outpace.evaluation.tune import Candidate, Deadline, Failure, Scores, chain_of, parse_target, search
from outpace.evaluation.tune.halving import FLOOR, rung_sizes

TARGET = parse_target(["psnr>=30"])
REQUESTS = [Request(index=i, prompt="", seed=i) for i in range(16)]


def line(count: int) -> list[Candidate]:
    """Candidates 0 dB to 60 dB, the dearer the better."""
    return [
        Candidate(name=f"c{i}", label=f"c{i}", cost=(i + 1) / count, payload=60.0 * i / (count - 1))
        for i in range(count)
    ]


class Bench:
    def __init__(self) -> None:
        self.asked: dict[str, list[int]] = {}

    def __call__(self, candidate: Candidate, asked: Sequence[Request]) -> list[Scores]:
        self.asked.setdefault(candidate.name, []).extend(r.index for r in asked)
        return [{"psnr": candidate.payload, "blocks": candidate.cost} for _ in asked]


def test_the_cheapest_that_keeps_the_target_comes_first_and_no_request_is_run_twice() -> None:
    bench = Bench()
    found = search(line(61), REQUESTS, bench, target=TARGET, risk=0.1)
    assert found.standings[0].candidate.name == "c30" and found.complete
    assert all(len(set(asked)) == len(asked) for asked in bench.asked.values())
    assert [rung.requests for rung in found.rungs] == [2, 4, 8, 16]
    assert [rung.candidates for rung in found.rungs] == [61, 21, 8, 8]
    spent = sum(map(len, bench.asked.values()))
    assert spent < 16 * 61 / 3, "halving is to spend a fraction of measuring everything on everything"


def test_certification_begins_with_the_safest_and_ends_with_the_most_wanted() -> None:
    found = search(line(61), REQUESTS, Bench(), target=TARGET, risk=0.1)
    chain = [s.candidate for s in chain_of(found, target=TARGET, risk=0.1)]
    payloads = [c.payload for c in chain]
    assert payloads == sorted(payloads, reverse=True) and payloads[-1] == 30.0 and payloads[0] > 40
    assert len(chain) <= 6 and chain_of(found, target=TARGET, risk=0.1, longest=2)[-1].candidate is chain[-1]


def test_without_a_bound_on_fidelity_the_most_faithful_within_the_share_wins() -> None:
    target = parse_target(["blocks<=0.5"])
    found = search(line(61), REQUESTS, Bench(), target=target, risk=0.1)
    best = found.standings[0]
    assert best.cost <= 0.5 and best.cost == max(s.cost for s in found.every if s.cost <= 0.5)
    chain = chain_of(found, target=target, risk=0.1)
    assert chain[-1] is best and [c.cost for c in chain] == sorted(c.cost for c in chain)


def test_presets_are_kept_to_the_end_and_failures_are_told() -> None:
    candidates = [
        *line(30),
        Candidate(name="preset", label="preset", cost=0.9, payload=0.0, kept=True),
        Candidate(name="broken", label="broken", cost=0.01, payload=60.0),
    ]
    bench = Bench()

    def evaluate(candidate: Candidate, asked: Sequence[Request]) -> list[Scores]:
        if candidate.name == "broken":
            raise Failure("does not fit")
        return bench(candidate, asked)

    found = search(candidates, REQUESTS, evaluate, target=TARGET, risk=0.1)
    assert len(bench.asked["preset"]) == 16 and found.failed == {"broken": "does not fit"}
    assert "broken" not in {s.candidate.name for s in [*found.standings, *found.every]}


def test_nothing_begins_after_the_deadline_and_what_was_measured_is_ranked() -> None:
    seconds = iter(range(10_000))
    bench = Bench()
    found = search(
        line(61), REQUESTS, bench, target=TARGET, risk=0.1, deadline=Deadline(20, clock=lambda: next(seconds))
    )
    assert not found.complete and len(bench.asked) == 19 == len(found.every) and found.untried == 61 - 19
    assert not chain_of(found, target=TARGET, risk=0.1), "only the cheap were tried, and none keeps it"
    assert list(bench.asked) == [f"c{i}" for i in range(19)], "the cheapest go first"


def test_a_deadline_between_rungs_keeps_the_survivors() -> None:
    seconds = iter(range(10_000))
    found = search(
        line(61), REQUESTS, Bench(), target=TARGET, risk=0.1, deadline=Deadline(70, clock=lambda: next(seconds))
    )
    assert not found.complete and len(found.standings) == 21
    assert found.standings[0].candidate.name == "c30" and found.untried == 0


def test_an_interruption_passes_through() -> None:
    def stops(candidate: Candidate, asked: Sequence[Request]) -> list[Scores]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(line(4), REQUESTS, stops, target=TARGET, risk=0.1)


def test_where_the_last_rung_keeps_nothing_the_safest_of_the_rungs_before_are_certified() -> None:
    def evaluate(candidate: Candidate, asked: Sequence[Request]) -> list[Scores]:
        hard = any(r.index >= 8 for r in asked)
        return [{"psnr": candidate.payload - 31.0 * hard, "blocks": candidate.cost} for _ in asked]

    candidates = [Candidate(name=f"c{i}", label=f"c{i}", cost=(i + 1) / 60, payload=float(i)) for i in range(60)]
    found = search(candidates, REQUESTS, evaluate, target=TARGET, risk=0.1)
    assert all(s.margin(TARGET, 0.05) < 0 for s in found.standings)
    chain = chain_of(found, target=TARGET, risk=0.1)
    assert chain and all(len(s.scores) < 16 for s in chain) and chain[0].candidate.payload > 50


def test_small_searches_and_empty_ones() -> None:
    found = search(line(3), REQUESTS[:1], Bench(), target=TARGET, risk=0.1)
    assert [s.candidate.name for s in found.standings] == ["c1", "c2", "c0"] and FLOOR > 3
    with pytest.raises(ConfigError, match="at least one candidate"):
        search([], REQUESTS, Bench(), target=TARGET, risk=0.1)
    for count in range(1, 100):
        sizes = rung_sizes(count)
        assert sizes[-1] == count and sizes == sorted(set(sizes))
