"""A tuning from end to end: the search, the certification, the rivals on the same prompts, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from outpace.cli.tuning.grid import parts_for, settings_grid
from outpace.cli.tuning.part import Trial
from outpace.cli.tuning.rivals import Rivals, compare, fewer_steps
from outpace.evaluation.tune import (
    Candidate,
    Certificate,
    Deadline,
    Search,
    Standing,
    Target,
    certify,
    chain_of,
    search,
)
from outpace.evaluation.tune.halving import FIRST
from outpace.evaluation.tune.target import is_higher_better

if TYPE_CHECKING:
    from outpace.cli.tuning.measuring import Measuring
    from outpace.evaluation import Request

TIMED = 2
"""Held-out requests on which the result is timed beside the plain pipeline."""

HELD_OUT_RUNS = 10
"""Runs over the held-out requests that time is kept for, each with the work of `USUAL`: some candidates, then the
presets and fewer steps."""

CALIBRATION = 0.15
"""Share of the budget that may be spent on the calibration of a schedule."""

USUAL = 0.4
"""Share of the plain pipeline's work that candidates usually need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """What is to be certified."""

    target: Target
    risk: float
    alpha: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Seconds that measuring takes."""

    few: float
    """A request of the plain pipeline, as few in a batch as a search begins with."""
    batched: float
    """The same in full batches."""
    alone: float
    """The same at batch 1, as it is timed; 0 where the target does not bound the time."""

    def of(self, cost: float, requests: int) -> float:
        """A candidate with `cost` of the plain pipeline's work on some requests: timed beside it, after a warm-up."""
        each = self.few if requests <= FIRST else self.batched
        return requests * each * cost + (requests + 1) * self.alone * (1 + cost)

    def runs(self, budget: float | None) -> float:
        """Plain runs of one prompt that a calibration may take of a budget in seconds."""
        return math.inf if budget is None else CALIBRATION * budget / max(self.few, 1e-9)


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What a tuning found."""

    found: Search
    certificate: Certificate
    best: Standing | None
    """The certified settings on the held-out requests, or else the safest ones on the calibration requests."""
    requests: Sequence[Request]
    calibrated: int
    """Calibration requests."""
    seconds: float
    rivals: Rivals = field(default_factory=Rivals)
    """How the presets and fewer steps stand beside them."""
    times: list[float] = field(default_factory=list)
    """Shares of the plain pipeline's time, of the best settings at batch 1."""

    def settings(self) -> dict[str, Any] | None:
        """The best settings as plain data."""
        if self.best is None:
            return None
        contender, methods, _ = self.best.candidate.payload
        return {
            "label": self.best.candidate.label,
            "steps": contender.steps,
            "methods": [method.to_dict() for method in methods],
        }

    def bound(self) -> dict[str, Any]:
        """What is promised, as plain data."""
        certificate, chosen = self.certificate, self.certificate.chosen
        return {
            "risk": certificate.risk,
            "alpha": certificate.alpha,
            "held_out_requests": certificate.requests,
            "misses_allowed": certificate.allowed,
            "misses": chosen.misses if chosen else None,
            "p_value": chosen.p_value if chosen else None,
            "test": "exact binomial, in fixed sequence from the safest setting",
            "chain": [
                {"label": t.candidate.label, "misses": t.misses, "of": len(t.scores), "passed": t.passed}
                for t in certificate.trials
            ],
            "ended": certificate.ended,
            "statement": certificate.statement(),
        }

    def calibration(self) -> dict[str, Any]:
        """How the settings were found and what they reach, as plain data."""
        return {
            "requests": self.calibrated,
            "rungs": [asdict(rung) for rung in self.found.rungs],
            "failed": self.found.failed,
            "untried": self.found.untried,
            "complete": self.found.complete,
            "seconds": round(self.seconds, 1),
            "figures": figures(self.best) if self.best else None,
            "figures_of": "held-out requests" if self.certificate.chosen else "calibration requests",
            "share_of_time": [round(share, 4) for share in self.times],
        }

    def verdict(self) -> str:
        """Whether the tuned settings beat every preset and fewer steps, in a sentence or two."""
        if self.best is None:
            return "No settings to hold against the presets."
        if self.certificate.chosen is None:
            return "Nothing was certified, so nothing is claimed against the presets."
        return self.rivals.verdict()

    def lines(self) -> list[str]:
        """The outcome for a person."""
        found, certificate = self.found, self.certificate
        steps = ", then ".join(f"{rung.candidates} on {rung.requests}" for rung in found.rungs)
        lines = [f"Searched in {self.seconds:.0f} s: {steps} calibration prompts."]
        if not found.complete or found.untried:
            left = f", {found.untried} settings were not tried" if found.untried else ""
            lines.append(f"  the budget was short{left}; the same command with a longer --budget goes on from here")
        lines += [f"  could not run: {label}: {why}" for label, why in found.failed.items()]
        if self.best is not None:
            lines.append(
                f"{'Tuned' if certificate.chosen else 'Safest on calibration prompts'}: {self.told(self.best)}"
            )
        lines.append(certificate.statement())
        if certificate.chosen and certificate.ended:
            lines.append(f"  nothing faster was certified: {certificate.ended}")
        return [*lines, *self.rivals.lines(), self.verdict()]

    def told(self, standing: Standing) -> str:
        """Settings with their price and what it buys, in one line."""
        numbers = figures(standing)
        words = [f"{numbers['blocks']:.2f} of the plain pipeline's blocks ({1 / numbers['blocks']:.1f}x fewer)"]
        if self.times:
            words.append(f"{median(self.times):.2f} of its time ({len(self.times)} prompts at batch 1)")
        for name in ("psnr", "ssim", "latent_l2"):
            if name in numbers:
                words.append(f"{name} {numbers[name]['median']:.4g} (worst {numbers[name]['worst']:.4g})")
        return f"{standing.candidate.label}: {', '.join(words)}"


def run_tuning(
    measuring: Measuring,
    choosing: Sequence[Request],
    certifying: Sequence[Request],
    promise: Promise,
    deadline: Deadline,
    *,
    progress: bool = True,
) -> Outcome:
    """Search on `choosing`, certify on `certifying`, and hold the result against every preset and fewer steps."""
    bar = tqdm(unit="sample", desc="tune", disable=not progress, dynamic_ncols=True)

    def advance(label: str, count: int) -> None:
        bar.set_postfix_str(label)
        bar.update(count)

    with bar:
        price = price_of(measuring, choosing, deadline)
        trial = Trial(
            bench=measuring.bench,
            request=choosing[0],
            target=promise.target,
            runs=price.runs(deadline.seconds),
            once=measuring.once,
        )
        candidates = settings_grid(measuring.bench, parts_for(trial))
        searching = deadline.share(search_share(deadline.seconds, price, len(certifying)))
        tried = affordable(candidates, searching, price)
        target, risk = promise.target, promise.risk
        found = search(tried, choosing, measuring, target=target, risk=risk, deadline=searching, progress=advance)
        found.untried += len(candidates) - len(tried)
        chain = chain_of(found, target=target, risk=risk)
        certificate = certify(
            [standing.candidate for standing in chain],
            certifying,
            measuring,
            target=target,
            risk=risk,
            alpha=promise.alpha,
            batch=measuring.batch,
            deadline=deadline,
            progress=advance,
        )
        if not found.every:
            certificate.reason = "no setting could be measured before the budget ended; give a longer --budget"
        chosen = certificate.chosen
        best = Standing(candidate=chosen.candidate, scores=chosen.scores) if chosen else next(iter(chain), None)
        outcome = Outcome(
            found=found,
            certificate=certificate,
            best=best,
            requests=certifying,
            calibrated=len(choosing),
            seconds=deadline.spent,
        )
        if chosen and best is not None:
            outcome.times = measuring.share_of_time(best.candidate, certifying[:TIMED])
            presets = [candidate for candidate in tried if candidate.kept]
            rivals = [*presets, *fewer_steps(measuring.bench, best)]
            outcome.rivals = compare(rivals, best, certifying, measuring, certificate, deadline, advance)
    return outcome


def price_of(measuring: Measuring, requests: Sequence[Request], deadline: Deadline) -> Price:
    """What measuring takes here, found on the first requests.

    Raises: InputError where the target cannot be measured, before anything long is begun.
    """
    first, full = list(requests[:FIRST]), list(requests[: measuring.batch])
    measuring(Candidate(name="plain", label="plain", cost=1.0, payload=(measuring.again(), (), "")), first)

    def seconds(some: list[Request]) -> float:
        begun = deadline.spent  # the run before has warmed up what a first run pays for
        measuring.bench.run(some, measuring.bench.steps)
        return (deadline.spent - begun) / len(some)

    alone = seconds(first[:1]) if "time" in measuring.target.names else 0.0
    return Price(few=seconds(first), batched=seconds(full), alone=alone)


def search_share(budget: float | None, price: Price, held_out: int) -> float:
    """Share of the budget for the search: what the runs over the held-out requests leave over."""
    if budget is None:
        return 1.0
    certifying = price.of(1.0, held_out) + HELD_OUT_RUNS * price.of(USUAL, held_out)
    return min(0.75, max(0.25, 1.0 - certifying / budget))


def affordable(candidates: list[Candidate], searching: Deadline, price: Price) -> list[Candidate]:
    """As many candidates, from the first on, as half of the time for the search takes through the first rung."""
    if searching.seconds is None:
        return candidates
    left = (searching.seconds - searching.spent) / 2
    spent, chosen = 0.0, []
    for candidate in candidates:
        spent += price.of(candidate.cost, FIRST)
        if spent > left and len(chosen) >= 4:
            break
        chosen.append(candidate)
    return chosen


def figures(standing: Standing) -> dict[str, Any]:
    """What a candidate reached: its mean share of the work, and of everything else the median and the worst."""
    numbers: dict[str, Any] = {"blocks": standing.mean("blocks"), "requests": len(standing.scores)}
    for name in standing.scores[0]:
        values = [value for s in standing.scores if (value := s.get(name)) is not None]
        if name != "blocks" and values:
            higher = is_higher_better(name)
            numbers[name] = {
                "median": median(values),
                "worst": min(values) if higher else max(values),
                "missing": len(standing.scores) - len(values),
            }
    return numbers
