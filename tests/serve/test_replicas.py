"""An order whose replica dies is sent again as it was, and told of once; Ray itself is among the slow claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from outpace.serve import replicas
from outpace.serve.orders import Event, Failed, Made, Order, Progress
from outpace.serve.replicas import TRIES, RayMaker

ORDER = Order(prompt="a line", seed=7, tier="exact", steps=3, watched=True)
MADE = Made(picture=b"", recipe={}, computed={}, batch=1, seconds=0.0)


class Died(Exception):
    """What Ray raises."""


class Gone(Exception):
    """What Ray Serve raises while it has no replica."""


class Handle:
    """Sends orders to replicas, some of which die after some steps."""

    def __init__(self, dies_after: list[int | None], error: type[Exception] = Died) -> None:
        self.dies_after, self.error, self.sent, self.cancelled = dies_after, error, [], 0
        self.events = SimpleNamespace(remote=self.send)

    def send(self, order: Order) -> Any:
        self.sent.append(order)
        return Stream(self, self.dies_after[len(self.sent) - 1])


class Stream:
    """What one replica says."""

    def __init__(self, handle: Handle, dies_after: int | None) -> None:
        self.handle, self.dies_after = handle, dies_after

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        for step in range(3):
            if step == self.dies_after:
                raise self.handle.error
            yield Progress(step=step + 1, steps=3)
        yield MADE

    def cancel(self) -> None:
        self.handle.cancelled += 1


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch):
    """`answers(handle)`: what comes of ORDER."""
    monkeypatch.setattr(replicas.asyncio, "sleep", no_wait)

    def asked(handle: Handle, most: int = 100) -> list[Event]:
        maker = RayMaker.__new__(RayMaker)
        errors = SimpleNamespace(RayActorError=Died, WorkerCrashedError=Died, NodeDiedError=Died)
        maker.ray, maker.handle, maker.unavailable = SimpleNamespace(exceptions=errors), handle, Gone

        async def whole() -> list[Event]:
            found: list[Event] = []
            events = maker.events(ORDER)
            async for event in events:
                found.append(event)
                if len(found) == most:
                    break
            await events.aclose()
            return found

        return asyncio.run(whole())

    return asked


async def no_wait(seconds: float) -> None:
    """Instead of asyncio.sleep."""


@pytest.mark.parametrize("error", [Died, Gone])
def test_an_order_is_sent_again_as_it_was_and_no_step_is_told_twice(answers, error) -> None:
    handle = Handle([2, 0, 1, None], error)
    told = answers(handle)
    assert [event.step for event in told if isinstance(event, Progress)] == [1, 2, 3]
    assert told[-1] is MADE and told.count(MADE) == 1
    assert handle.sent == [ORDER] * 4


def test_an_order_that_kills_whoever_takes_it_is_given_up(answers) -> None:
    handle = Handle([0] * TRIES)
    (told,) = answers(handle)
    assert isinstance(told, Failed) and len(handle.sent) == TRIES


def test_who_leaves_is_left_by_the_replica_too(answers) -> None:
    handle = Handle([None])
    assert len(answers(handle, most=1)) == 1
    assert handle.cancelled == 1


def test_other_errors_are_not_tried_again(answers) -> None:
    handle = Handle([1, None], ValueError)
    with pytest.raises(ValueError):
        answers(handle)
    assert len(handle.sent) == 1
