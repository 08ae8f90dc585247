"""What every crew can do, and the crew of one: this very process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

Job = Any
"""Which batch is meant, as plain data: ("gated-0.15", 3)."""

Do = Callable[[Job], Any]
"""Does a job, leaves its files, and returns plain data about it."""


class Crew(Protocol):
    """Works through jobs, in whatever processes."""

    leads: bool
    """True in the process that says what is to be done, and tells the user what came of it."""

    size: int
    """Processes that work."""

    def work(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Yield each job with what doing it returned, in the order in which they end.

        After the last one every job is done, whoever did it. Only the jobs of the leading process count.
        """
        ...

    def close(self) -> None:
        """Let the other processes go; what comes now, this one does alone."""
        ...


class Alone:
    """This process does every job, in order."""

    leads = True
    size = 1

    def __init__(self, do: Do) -> None:
        self.do = do

    def work(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        for job in jobs:
            yield job, self.do(job)

    def close(self) -> None:
        """Nobody to let go."""
