"""One batch after the other, composed from strangers' orders: those of one shape share a call, the oldest goes first.

Ray Serve has batching too, with one queue for everybody: orders of two shapes would share a batch that no pipeline can
make, and all would be answered when the last was done. So who shares a batch is decided here.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from outpace.errors import OutpaceError
from outpace.serve.orders import Event, Failed, Made, Order, Progress, Refused

OnStep = Callable[[int, int], None]
"""Told of each step and of how many there are; raises `Abandoned` where nobody waits any longer."""

Make = Callable[[list[Order], OnStep], list[Made]]
"""Makes orders of one shape in one call."""


class Abandoned(Exception):
    """Everybody who shared this batch has left."""


@dataclass(eq=False, slots=True)
class Ticket:
    """An order that somebody waits for."""

    order: Order
    shape: Hashable
    since: float
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    left: bool = False


class Batches:
    """Answers orders, those of one shape together.

    Args:
        make: makes a batch; called in a thread of its own, one call at a time.
        shape: what orders must share to be made together.
        size: orders in a batch at most.
        patience: seconds that an order may wait for company while nothing else is being made.
    """

    def __init__(self, make: Make, shape: Callable[[Order], Hashable], *, size: int, patience: float = 0.02) -> None:
        self.make, self.shape, self.size, self.patience = make, shape, size, patience
        self.waiting: list[Ticket] = []
        self._working: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outpace-batch")
        self._arrived = asyncio.Event()

    async def events(self, order: Order) -> AsyncGenerator[Event, None]:
        """Make one picture, in whatever company; who stops listening leaves the batch, and the others stay."""
        try:
            shape = self.shape(order)
        except OutpaceError as error:
            yield Refused(message=str(error))
            return
        ticket = Ticket(order, shape, time.monotonic())
        self.waiting.append(ticket)
        self._arrived.set()
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())
        try:
            while True:
                event = await ticket.events.get()
                yield event
                if not isinstance(event, Progress):
                    return
        finally:
            ticket.left = True
            if ticket in self.waiting:
                self.waiting.remove(ticket)

    def close(self) -> None:
        if self._working is not None:
            self._working.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while self.waiting:
            await self._gather()
            batch = self._next()
            if batch:
                await self._make(batch)

    async def _gather(self) -> None:
        """Wait until a batch is full, or the oldest order has waited long enough."""
        while self.waiting and len(self._next(take=False)) < self.size:
            left = self.waiting[0].since + self.patience - time.monotonic()
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), max(0.0, left))
            except asyncio.TimeoutError:
                return

    def _next(self, *, take: bool = True) -> list[Ticket]:
        """The oldest order and those of its shape, those of its dial before others."""
        if not self.waiting:
            return []
        oldest = self.waiting[0]
        alike = [ticket for ticket in self.waiting if ticket.shape == oldest.shape]
        # A step that nobody of a batch computes costs next to nothing, and those of one dial compute at the same steps.
        batch = sorted(alike, key=lambda ticket: ticket.order.dial() != oldest.order.dial())[: self.size]
        if take:
            self.waiting = [ticket for ticket in self.waiting if ticket not in batch]
        return batch

    async def _make(self, batch: list[Ticket]) -> None:
        loop = asyncio.get_running_loop()

        def on_step(step: int, steps: int) -> None:
            if all(ticket.left for ticket in batch):
                raise Abandoned
            for ticket in batch:
                if ticket.order.watched and not ticket.left:
                    loop.call_soon_threadsafe(ticket.events.put_nowait, Progress(step=step, steps=steps))

        try:
            orders = [ticket.order for ticket in batch]
            made: list[Event] = [*await loop.run_in_executor(self._thread, self.make, orders, on_step)]
            if len(made) != len(batch):
                raise RuntimeError(f"{len(batch)} orders, but {len(made)} pictures")
        except Abandoned:
            return
        except Exception as error:
            if len(batch) > 1:  # whoever cannot be made shall not take the others along
                for ticket in batch:
                    if not ticket.left:
                        await self._make([ticket])
                return
            known = isinstance(error, OutpaceError)
            made = [Refused(message=str(error)) if known else failed(error)]
        for ticket, event in zip(batch, made, strict=True):
            ticket.events.put_nowait(event)


def failed(error: Exception) -> Failed:
    """What the log is told of a defect."""
    return Failed(message="".join(traceback.format_exception(error)).rstrip())
