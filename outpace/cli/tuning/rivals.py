"""What tuned settings are held against, on the prompts that certified them: every preset, and fewer steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from outpace.cli.tuning.grid import DPM, UNIPC, candidate_of
from outpace.evaluation.tune import Candidate, Certificate, Deadline, Evaluate, Failure, Standing

if TYPE_CHECKING:
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Request

GAIN = 0.02
"""Work may differ by this share of the rival's before one is said to beat the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """Settings that nobody had to search for, beside the tuned ones."""

    label: str
    kind: str
    """"preset", "fewer-steps", or "solver" for fewer steps on a better solver."""
    blocks: float
    """Mean share of the plain pipeline's work."""
    time: float | None
    """Median share of its time, where the target bounds that."""
    misses: int
    requests: int
    psnr: float | None
    """Median, in dB."""
    says: str
    """How it stands against the tuned settings: "worse", "equal", "better", or "same" where it is them."""
    why: str

    def line(self) -> str:
        return f"{self.label}: {self.blocks:.2f} of the blocks, missed {self.misses} of {self.requests}; {self.why}"


@dataclass(kw_only=True, slots=True)
class Rivals:
    """How all of them stand."""

    rows: list[Rival] = field(default_factory=list)
    uncompared: list[str] = field(default_factory=list)
    """Those that the budget left no time for, or that failed, with the reason."""

    def as_dicts(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]

    def lines(self) -> list[str]:
        """One line a rival, for a person."""
        if not self.rows:
            return []
        head = (
            f"Presets, and as many steps as the same work buys, on the same {self.rows[0].requests} held-out prompts:"
        )
        return [head, *(f"  {row.line()}" for row in self.rows)]

    def verdict(self) -> str:
        """Whether the tuned settings beat all of them; those that they do not beat are named."""
        same = [row.label for row in self.rows if row.says == "same"]
        unbeaten = [f"{row.label} ({row.why})" for row in self.rows if row.says in ("better", "equal")]
        said = [f"The best settings are {same[0]}."] if same else []
        if unbeaten:
            said.append(f"Does not beat {'; '.join(unbeaten)}.")
        elif same:
            said.append("Tuning found nothing better.")
        elif self.rows:
            said.append(f"Beats every preset and fewer steps{', of those compared' if self.uncompared else ''}.")
        else:
            said.append("Nothing was compared.")
        return " ".join([*said, *(f"Not compared: {text}." for text in self.uncompared)])


def fewer_steps(bench: Bench, best: Standing) -> list[Candidate]:
    """As many steps as the work of the tuned settings buys: of the pipeline's own solver, and of the better ones.

    Fewer would be further from the plain pipeline, more would cost more, so no other number of steps could win.
    """
    steps = min(bench.steps - 1, max(2, int(best.cost * bench.steps + 1e-6)))
    return [candidate_of(bench, steps, methods) for methods in ((), (DPM,), (UNIPC,))]


def compare(
    rivals: Iterable[Candidate],
    best: Standing,
    requests: Sequence[Request],
    evaluate: Evaluate,
    certificate: Certificate,
    deadline: Deadline,
    progress: Callable[[str, int], object],
) -> Rivals:
    """Run `rivals` over the requests that certified `best`, and say how each stands."""
    stand = Rivals()
    for candidate in rivals:
        if deadline.over and candidate.name != best.candidate.name:
            stand.uncompared.append(f"{label_of(candidate)} (the budget ended)")
            continue
        progress(candidate.label, len(requests))
        try:
            standing = Standing(candidate=candidate, scores=evaluate(candidate, requests))
        except Failure as error:
            stand.uncompared.append(f"{label_of(candidate)} ({error})")
            continue
        stand.rows.append(rival_of(standing, best, certificate))
    return stand


def label_of(candidate: Candidate) -> str:
    """A preset by its name alone, anything else in full."""
    preset = candidate.payload[2]
    return f"preset {preset}" if preset else candidate.label


def rival_of(rival: Standing, best: Standing, certificate: Certificate) -> Rival:
    """How a rival stands against the certified settings on the same requests."""
    target, misses = certificate.target, rival.misses(certificate.target)
    ours, theirs = best.worth(target), rival.worth(target)
    if rival.candidate.name == best.candidate.name:
        says, why = "same", "these are the tuned settings"
    elif misses > certificate.allowed:
        cheaper = ", with less work" if rival.cost < best.cost * (1 - GAIN) else ""
        says, why = "worse", f"misses more than the {certificate.allowed} that may be{cheaper}"
    elif ours > theirs + GAIN * abs(theirs):
        says, why = "worse", "keeps the target with more work" if target.fidelity else "keeps it with less fidelity"
    elif ours < theirs - GAIN * abs(theirs):
        says, why = "better", "keeps the target with less work" if target.fidelity else "keeps it with more fidelity"
    else:
        says, why = "equal", "keeps the target about as well"
    contender, _, preset = rival.candidate.payload
    return Rival(
        label=label_of(rival.candidate),
        kind="preset" if preset else contender.kind,
        blocks=rival.cost,
        time=middle(rival, "time"),
        misses=misses,
        requests=len(rival.scores),
        psnr=middle(rival, "psnr"),
        says=says,
        why=why,
    )


def middle(standing: Standing, name: str) -> float | None:
    """Median of one number over the requests that have it."""
    values = [value for scores in standing.scores if (value := scores.get(name)) is not None]
    return median(values) if values else None
