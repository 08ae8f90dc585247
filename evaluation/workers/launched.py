"""The processes that `accelerate launch` or `torchrun` started, each with a fixed share of the jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from .crew import Do, Job

PATIENCE = timedelta(days=30)
"""How long a process waits for the others at the end of a stage. Theirs may take hours, and the launcher ends everybody
as soon as one dies, so that nobody waits for the dead."""


def is_launched() -> bool:
    """True in one of several processes that a launcher started together, which it tells by the environment."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


class Launched:
    """Every process of the group does each size-th job, beginning at its rank; rank 0 leads.

    The jobs are those of rank 0, and nobody goes on before everybody is done: later jobs may read what earlier ones
    left. Only plain data is exchanged, over gloo, whatever device the pipelines are on.
    """

    def __init__(self, do: Do) -> None:
        from torch import distributed

        self.do = do
        self.group = distributed
        distributed.init_process_group("gloo", timeout=PATIENCE)
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()
        self.leads = self.rank == 0

    def work(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        said = [list(jobs)]
        self.group.broadcast_object_list(said, src=0)
        mine = []
        for job in said[0][self.rank :: self.size]:
            mine.append((job, self.do(job)))
            yield mine[-1]
        everyone: list[Any] = [None] * self.size
        self.group.all_gather_object(everyone, mine)
        for rank, done in enumerate(everyone):
            if rank != self.rank:
                yield from done

    def close(self) -> None:
        self.group.destroy_process_group()
