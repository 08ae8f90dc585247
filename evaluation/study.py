"""A study: the same requests through every contender, and what is known about each afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError
from .cells import SPEEDUPS
from .contender import Contender, Request
from .features import Extractor
from .memory import Memory
from .stages import Parts
from .timing import Pair

Check = Callable[[list[np.ndarray], list[Any]], list[dict[str, float]]]


@dataclass(kw_only=True, slots=True)
class Row:
    """What is known about one contender after a run."""

    contender: Contender
    samples: list[dict[str, Any]] = field(default_factory=list)
    """One entry a request: index, blocks, work, metrics {reference: {metric: value or None}}, checks, features (text),
    trace."""

    pairs: list[Pair] = field(default_factory=list)
    memory: Memory | None = None
    """What one timed call takes; None for who was not timed."""

    stages: dict[str, float] | None = None
    """Seconds of one timed call by stage; None for who was not timed."""

    error: str | None = None
    """Why there is nothing, for a contender that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """The same requests through every contender, compared with two references.

    Args:
        contenders: all of them, the references among them.
        requests: what each is asked for, index 0 upward.
        folder: where results are kept; the same study in the same folder continues where it stopped.

    Raises: ConfigError where names repeat, a reference is missing, or there is no request.
    """

    contenders: Sequence[Contender]
    requests: Sequence[Request]
    folder: Path

    plain: str = "plain"
    """Name of the reference that runs the same steps with nothing skipped; blocks and times are relative to it."""

    converged: str | None = "converged"
    """Name of the reference near the exact solution, or None."""

    check: Check | None = None
    """Reads generated media and tells how well each follows its prompt: {"colour": 0..1, ...} a sample."""

    features: Extractor | None = None
    """Media -> features [R, D] that distances of whole sets are taken over, such as a reader's; None: no such."""

    batch: int = 8
    """Requests run at once; a contender may ask for fewer. Raising it costs memory."""

    timing_requests: int = 0
    """Requests timed, paired with the plain pipeline; 0 leaves times out."""

    timing_batch: int = 1
    """Requests a timed call. What happens once a call, such as a solver's step, weighs less as this grows; who may be
    given fewer at once makes several calls in its turn."""

    timing_rounds: int = 1
    """How often the timed requests are gone over."""

    timed: Literal["shown", "every"] = "shown"
    """Who is timed, and has its peak memory measured: of each curve the contenders nearest to `target` and to each of
    `speedups`, and those asked for by name; or every one."""

    target: float = 2.5
    """The speed-up in computed work at which curves are shown."""

    speedups: Sequence[float] = SPEEDUPS
    """Where curves are compared: times less work, and times less time."""

    device: str = "cpu"
    """Where the contenders run, for the clock."""

    parts: Parts = field(default_factory=dict)
    """What of a call is timed apart, such as {"text": (pipe, "encode_prompt")}; the rest is denoising."""

    identity: dict[str, Any] = field(default_factory=dict)
    """Plain data that tells this pipeline from others; kept results of another identity are made again."""

    def __post_init__(self) -> None:
        names = [c.name for c in self.contenders]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ConfigError(f"contender names must differ; given twice: {', '.join(twice)}")
        if not self.requests:
            raise ConfigError("a study needs at least one request")
        if min(self.batch, self.timing_batch, self.timing_rounds) < 1 or self.timing_requests < 0:
            raise ConfigError("batch, timing batch and timing rounds must be at least 1, timing requests at least 0")
        timed = min(self.timing_requests, len(self.requests))
        if timed % self.timing_batch:
            raise ConfigError(
                f"{timed} timed prompts cannot be asked for in calls of {self.timing_batch}: take a multiple"
            )
        for reference in self.references:
            if reference not in names:
                raise ConfigError(f"the reference '{reference}' is not among the contenders ({', '.join(names)})")

    @property
    def references(self) -> list[str]:
        return [self.plain] + ([self.converged] if self.converged else [])

    def ordered(self) -> list[Contender]:
        """The converged reference, the plain one, then the others: each is compared with references before it."""
        by_name = {c.name: c for c in self.contenders}
        first = [by_name[name] for name in reversed(self.references)]
        return first + [c for c in self.contenders if c.name not in self.references]

    def stages(self) -> list[list[Contender]]:
        """`ordered` in groups, none compared with a member of its own: a group can be run in any order."""
        ordered, first = self.ordered(), len(self.references)
        return [*([c] for c in ordered[:first]), ordered[first:]]

    def compared_with(self, contender: str) -> list[str]:
        """The references that `contender` is measured against."""
        if contender == self.converged:
            return []
        return [name for name in self.references if name != contender]
