"""From "it kept the target on these prompts" to a promise about prompts not seen: Learn then Test, one after another.

The share of requests that miss the target is bounded for each candidate of a chain by an exact binomial test on
requests that chose nothing. Testing from the safest on, each at the full level, and stopping at the first that fails
keeps the chance of certifying any candidate wrongly at that level, however many are tested.

Source: Angelopoulos, Bates, Candes, Jordan, Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
Control" (2021, arXiv:2110.01052), fixed-sequence testing; the loss being 0 or 1, their Hoeffding-Bentkus p-value is
replaced by the exact binomial tail, which is never larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import ConfigError
from ..contender import Request
from .candidate import Candidate, Deadline, Evaluate, Failure, Scores, Standing
from .halving import Search, safe_front, spread
from .target import Target

CHAIN = 6
"""Most candidates that are certified one after another; each costs a run over the held-out requests."""

MOST_REQUESTS = 100_000
"""Where looking for a number of requests that would do is given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One candidate on the held-out requests."""

    candidate: Candidate
    scores: list[Scores]
    """As many as were measured: a candidate that has missed too often already is not run to the end."""
    misses: int
    p_value: float
    """Chance of so few misses if the share were `risk`; of a candidate not run to the end, what it is at least."""
    passed: bool


@dataclass(kw_only=True, slots=True)
class Certificate:
    """What can be promised of the last candidate that passed, or why nothing can."""

    target: Target
    risk: float
    alpha: float
    requests: int
    trials: list[Trial]
    """In the order of the tests, from the safest on."""
    reason: str = ""
    """Why nothing was certified."""
    ended: str = ""
    """Why no later candidate was tried, where any was left."""

    @property
    def chosen(self) -> Trial | None:
        """The last that passed: of those certified the most wanted."""
        passed = [trial for trial in self.trials if trial.passed]
        return passed[-1] if passed else None

    @property
    def allowed(self) -> int:
        return allowed_misses(self.requests, self.risk, self.alpha)

    def statement(self) -> str:
        """The promise in words, or that there is none and why."""
        chosen = self.chosen
        if chosen is None:
            return f"Not certified: {self.reason}"
        return (
            f"Certified: at most {percent(self.risk)} of requests (prompt and seed) drawn like the {self.requests} "
            f"held-out ones miss {self.target}; of those, {chosen.misses} did and {self.allowed} might have "
            f"(p = {chosen.p_value:.2g}). The procedure says so wrongly in at most {percent(self.alpha)} of the "
            "draws of held-out requests. Nothing is said of other kinds of prompts, of other steps, sizes, weights or "
            "versions, or of any single request."
        )


def binomial_p(misses: int, requests: int, risk: float) -> float:
    """The chance of `misses` or fewer among `requests` where the share that misses is `risk`.

    A valid p-value of "more than `risk` miss", whatever the requests are like, as long as they are drawn alike.
    """
    from scipy.stats import binom

    return float(binom.cdf(misses, requests, risk))


def allowed_misses(requests: int, risk: float, alpha: float) -> int:
    """The most misses with which `risk` is still certified at level `alpha`; -1 where even none is too many.

    >>> allowed_misses(21, 0.1, 0.1), allowed_misses(22, 0.1, 0.1), allowed_misses(64, 0.1, 0.1)
    (-1, 0, 2)
    """
    misses = -1
    while misses + 1 < requests and binomial_p(misses + 1, requests, risk) <= alpha:
        misses += 1
    return misses


def requests_needed(share: float, risk: float, alpha: float) -> int | None:
    """How many requests would certify `risk` if `share` of them miss; None where no number would do.

    >>> requests_needed(0.0, 0.1, 0.1), requests_needed(0.05, 0.1, 0.1), requests_needed(0.1, 0.1, 0.1)
    (22, 78, None)
    """
    if share >= risk:
        return None
    requests = 1
    while requests < MOST_REQUESTS:
        if allowed_misses_reach(share, requests, risk, alpha):
            return requests
        requests += 1 + requests // 500
    return None


def allowed_misses_reach(share: float, requests: int, risk: float, alpha: float) -> bool:
    """True where `share` of `requests`, rounded up, still certifies."""
    return binomial_p(math.ceil(share * requests - 1e-9), requests, risk) <= alpha


def chain_of(found: Search, *, target: Target, risk: float, longest: int = CHAIN) -> list[Standing]:
    """What to certify, the safest first: the front of margin and worth, as the search measured it.

    It may depend on everything but the held-out requests. Candidates that missed the target in the search are left
    out, since the first failure would end the chain. Where nothing of the last rung is left, what kept the target on
    the fewer requests of the rungs before is taken.
    """
    for standings in (found.standings, found.every):
        feasible = [s for s in standings if s.scores and s.margin(target, risk / 2) >= 0]
        if feasible:
            return spread(safe_front(feasible, target, risk), longest)
    return []


def certify(
    chain: Sequence[Candidate],
    requests: Sequence[Request],
    evaluate: Evaluate,
    *,
    target: Target,
    risk: float,
    alpha: float,
    batch: int = 8,
    deadline: Deadline | None = None,
    progress: Callable[[str, int], object] = lambda label, requests: None,
) -> Certificate:
    """Test the candidates of `chain` in order on held-out `requests` until one fails.

    Args:
        chain: from the safest to the most wanted, decided without `requests`.
        requests: drawn like those that the promise is about; none of them may have been used to choose anything.
        risk: the share of requests that may miss the target.
        alpha: the chance, over draws of `requests`, of certifying a candidate whose share is larger.
        batch: requests measured between two looks at whether the candidate has missed too often already.
        deadline: testing may end before any candidate without harm to the promise.

    Raises: ConfigError for a risk or alpha outside 0..1.
    """
    for name, value in (("risk", risk), ("alpha", alpha)):
        if not 0 < value < 1:
            raise ConfigError(f"{name} must lie between 0 and 1, not {value:g}")
    certificate = Certificate(target=target, risk=risk, alpha=alpha, requests=len(requests), trials=[])
    allowed = certificate.allowed
    if not chain:
        certificate.reason = f"no setting kept {target} on the calibration prompts"
        return certificate
    if allowed < 0:
        needed = requests_needed(0.0, risk, alpha)
        certificate.reason = (
            f"{len(requests)} held-out prompts are too few to promise that at most {percent(risk)} miss with alpha "
            f"{alpha:.3g}, even if none did; {needed} are needed"
        )
        return certificate
    deadline = deadline or Deadline(None)
    for candidate in chain:
        scores: list[Scores] = []
        misses = 0
        while len(scores) < len(requests) and misses <= allowed:
            if deadline.over:
                certificate.ended = (
                    f"the budget ended after {len(scores)} of {len(requests)} held-out prompts of '{candidate.label}'"
                )
                break
            part = requests[len(scores) : len(scores) + batch]
            progress(candidate.label, len(part))
            try:
                scores += evaluate(candidate, part)
            except Failure as error:
                certificate.ended = f"'{candidate.label}' failed: {error}"
                break
            misses = sum(bool(target.missed(s)) for s in scores)
        if certificate.ended:
            break
        p_value = binomial_p(misses, len(requests), risk)
        trial = Trial(candidate=candidate, scores=scores, misses=misses, p_value=p_value, passed=p_value <= alpha)
        certificate.trials.append(trial)
        if not trial.passed:
            certificate.ended = f"'{candidate.label}' missed {misses} of {len(scores)} held-out prompts"
            break
    if certificate.chosen is None:
        certificate.reason = why_not(certificate)
    return certificate


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def why_not(certificate: Certificate) -> str:
    """Why nothing passed, and what would help."""
    if not certificate.trials:
        return certificate.ended
    trial = certificate.trials[0]
    needed = requests_needed(trial.misses / len(trial.scores), certificate.risk, certificate.alpha)
    said = (
        f"the safest setting that was tried ('{trial.candidate.label}') missed {trial.misses} of {len(trial.scores)} "
        f"held-out prompts, and at most {certificate.allowed} of {certificate.requests} may be missed; "
    )
    if needed is None:
        return said + "no number of prompts would help while it misses that often: ask for less, or raise --risk"
    return said + f"if it keeps missing at that rate, about {needed} held-out prompts would do"
