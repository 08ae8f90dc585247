"""The promise holds: in simulations where the true share of misses is known, and at its edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom

from outpace.errors import ConfigError
from outpace.evaluation import Request
from outpace.evaluation.tune import Candidate, Deadline, Failure, Scores, certify, chain_of, parse_target, search
from outpace.evaluation.tune.certify import allowed_misses, binomial_p, requests_needed

TARGET = parse_target(["psnr>=30"])
RISK, ALPHA = 0.1, 0.1


def requests(count: int, first: int = 0) -> list[Request]:
    return [Request(index=first + i, prompt="", seed=first + i) for i in range(count)]


def candidate(name: str, share: float, cost: float = 0.5) -> Candidate:
    return Candidate(name=name, label=name, cost=cost, payload=share)


class World:
    """Requests of random difficulty: a candidate misses those that are harder than its share allows.

    Difficulty is shared between candidates, as it is in life: what is hard for one is hard for all.
    """

    def __init__(self, seed: int, noise: float = 0.3) -> None:
        self.seed, self.noise = seed, noise
        self.draws: dict[int, np.ndarray] = {}
        self.calls: list[tuple[str, int]] = []

    def __call__(self, candidate: Candidate, asked: Sequence[Request]) -> list[Scores]:
        self.calls.append((candidate.name, len(asked)))
        return [{"psnr": self.psnr(candidate, request), "blocks": candidate.cost} for request in asked]

    def psnr(self, candidate: Candidate, request: Request) -> float:
        if request.index not in self.draws:
            self.draws[request.index] = np.random.default_rng([self.seed, request.index]).random((12, 2))
        shared, (dice, own) = self.draws[request.index][-1, 0], self.draws[request.index][int(candidate.name[1:])]
        # A mixture of uniform draws is uniform: the share of misses is exactly the payload.
        return 30.0 + 10.0 * ((shared if dice > self.noise else own) - candidate.payload)


def grid(*shares: float) -> list[Candidate]:
    """Candidates that cost the less, the more often they miss."""
    return [candidate(f"c{i}", share, cost=1.0 / (2 + i)) for i, share in enumerate(shares)]


def test_a_mixture_misses_as_often_as_it_says() -> None:
    world = World(3)
    one = candidate("c1", 0.2)
    missed = np.mean([TARGET.missed(s) for s in world(one, requests(4000))])
    assert missed == pytest.approx(0.2, abs=3 * (0.2 * 0.8 / 4000) ** 0.5)


SHARES = (0.0, 0.01, 0.02, 0.04, 0.07, 0.101, 0.13, 0.2, 0.3, 0.5)
DRAWS = 200
AT_MOST = ALPHA * DRAWS + 3 * (DRAWS * ALPHA * (1 - ALPHA)) ** 0.5


def test_over_200_draws_the_whole_procedure_is_wrong_no_more_often_than_it_says() -> None:
    wrong = certified = naive = 0
    for draw in range(DRAWS):
        world = World(draw)
        shift = 1000 * draw
        found = search(grid(*SHARES), requests(16, shift), world, target=TARGET, risk=RISK)
        chain = [s.candidate for s in chain_of(found, target=TARGET, risk=RISK)]
        held_out = requests(64, shift + 100)
        certificate = certify(chain, held_out, world, target=TARGET, risk=RISK, alpha=ALPHA)
        naive += chain[-1].payload > RISK
        if certificate.chosen is not None:
            certified += 1
            wrong += certificate.chosen.candidate.payload > RISK
    assert wrong <= AT_MOST
    assert certified > 0.8 * DRAWS, "a promise that is never made is kept easily"
    assert naive > AT_MOST, "what the search alone favours would have broken the promise: the test can fail"


def test_in_the_worst_case_the_level_is_used_and_kept() -> None:
    """Every candidate misses just more than the risk: any certificate is wrong."""
    wrong = 0
    for draw in range(DRAWS):
        chain = grid(*[RISK + 1e-6] * 6)
        world = World(draw, noise=0.5)
        certificate = certify(chain, requests(64, 1000 * draw), world, target=TARGET, risk=RISK, alpha=ALPHA)
        wrong += certificate.chosen is not None
    expected = binom.cdf(allowed_misses(64, RISK, ALPHA), 64, RISK)
    assert expected <= ALPHA and wrong <= AT_MOST
    assert wrong >= expected * DRAWS - 3 * (DRAWS * expected) ** 0.5 - 1


def test_the_chain_is_walked_until_one_fails_and_no_further() -> None:
    world = World(0)
    chain = grid(0.0, 0.01, 0.6, 0.0)
    certificate = certify(chain, requests(64), world, target=TARGET, risk=RISK, alpha=ALPHA)
    assert [t.passed for t in certificate.trials] == [True, True, False]
    assert certificate.chosen is certificate.trials[1] and "'c2' missed" in certificate.ended
    assert "c3" not in {name for name, _ in world.calls}
    assert len(certificate.trials[2].scores) == 8, "a candidate that missed too often is not run to the end"
    assert "at most 10 % of requests" in certificate.statement() and "64 held-out" in certificate.statement()


def test_stopping_early_changes_no_verdict() -> None:
    for share in (0.02, 0.08, 0.15, 0.4):
        for batch in (1, 8, 64):
            chain = grid(share)
            result = certify(chain, requests(64), World(5), target=TARGET, risk=RISK, alpha=ALPHA, batch=batch)
            whole = sum(TARGET.missed(s) for s in World(5)(chain[0], requests(64)))
            assert result.trials[0].passed is (binomial_p(whole, 64, RISK) <= ALPHA)


def test_too_few_requests_and_hopeless_settings_say_what_would_help() -> None:
    world = World(0)
    few = certify(grid(0.0), requests(10), world, target=TARGET, risk=RISK, alpha=ALPHA)
    assert few.chosen is None and "22 are needed" in few.statement() and not world.calls
    none = certify([], requests(64), world, target=TARGET, risk=RISK, alpha=ALPHA)
    assert "no setting kept psnr>=30.0" in none.statement()
    often = certify(grid(0.9), requests(64), world, target=TARGET, risk=RISK, alpha=ALPHA)
    assert "no number of prompts would help" in often.statement()

    def misses_two(candidate: Candidate, asked: Sequence[Request]) -> list[Scores]:
        return [{"psnr": 20.0 if r.index < 2 else 40.0, "blocks": 0.5} for r in asked]

    seldom = certify(grid(0.0), requests(32), misses_two, target=TARGET, risk=RISK, alpha=ALPHA, batch=32)
    assert seldom.trials[0].misses == 2 and "held-out prompts would do" in seldom.statement()


def test_a_deadline_or_a_failure_ends_the_chain_and_keeps_what_passed() -> None:
    seconds = iter(range(1000))
    limited = certify(
        grid(0.0, 0.0), requests(24), World(0), target=TARGET, risk=RISK, alpha=ALPHA,
        deadline=Deadline(5, clock=lambda: next(seconds)),
    )  # fmt: skip
    assert limited.chosen is not None and limited.chosen.candidate.name == "c0" and "budget ended" in limited.ended
    at_once = certify(grid(0.0), requests(24), World(0), target=TARGET, risk=RISK, alpha=ALPHA, deadline=Deadline(0))
    assert at_once.chosen is None and "budget ended after 0 of 24" in at_once.statement()

    def fails(candidate: Candidate, asked: Sequence[Request]) -> list[Scores]:
        raise Failure("no such scheduler")

    broken = certify(grid(0.0), requests(24), fails, target=TARGET, risk=RISK, alpha=ALPHA)
    assert broken.chosen is None and "no such scheduler" in broken.statement()


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, float("nan")])
def test_levels_outside_their_range_are_refused(wrong: float) -> None:
    with pytest.raises(ConfigError, match="risk"):
        certify(grid(0.0), requests(24), World(0), target=TARGET, risk=wrong, alpha=ALPHA)
    with pytest.raises(ConfigError, match="alpha"):
        certify(grid(0.0), requests(24), World(0), target=TARGET, risk=RISK, alpha=wrong)


def test_numbers_of_requests_are_the_smallest_that_do() -> None:
    for risk, alpha in ((0.1, 0.1), (0.05, 0.1), (0.2, 0.01)):
        needed = requests_needed(0.0, risk, alpha)
        assert needed is not None
        assert (1 - risk) ** needed <= alpha < (1 - risk) ** (needed - 1)
        assert allowed_misses(needed, risk, alpha) == 0 and allowed_misses(needed - 1, risk, alpha) == -1
    assert requests_needed(0.2, 0.1, 0.1) is None
