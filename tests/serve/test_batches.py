"""Who shares a batch, in which order, and what becomes of those who leave or cannot be made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from outpace.errors import InputError
from outpace.serve.batches import Batches
from outpace.serve.orders import Event, Failed, Made, Order, Progress, Refused


class Press:
    """Makes batches of nothing, and remembers them; held until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, orders: list[Order], on_step: Callable[[int, int], None]) -> list[Made]:
        self.batches.append([order.seed for order in orders])
        for step in range(3):
            assert self.free.wait(10)
            on_step(step + 1, 3)
        if any(order.prompt == "poison" for order in orders):
            raise RuntimeError("spoilt")
        if any(order.prompt == "sour" for order in orders):
            raise InputError("too sour")
        return [
            Made(picture=str(o.seed).encode(), recipe={}, computed={}, batch=len(orders), seconds=0) for o in orders
        ]


def order(seed: int, *, steps: int = 5, prompt: str = "", watched: bool = False, tier: str = "exact") -> Order:
    return Order(prompt=prompt, seed=seed, tier=tier, steps=steps, watched=watched)


async def all_of(batches: Batches, wanted: Order) -> list[Event]:
    return [event async for event in batches.events(wanted)]


def play(story: Callable[[Press, Batches], Awaitable[Any]], size: int = 4) -> tuple[Press, Any]:
    """Run `story` within ten seconds."""
    press = Press()

    async def whole() -> Any:
        batches = Batches(press, shape, size=size, patience=0.05)
        try:
            return await asyncio.wait_for(story(press, batches), 10)
        finally:
            press.free.set()
            batches.close()

    return press, asyncio.run(whole())


def shape(wanted: Order) -> Any:
    if wanted.prompt == "unreadable":
        raise InputError("what is that?")
    return wanted.shape()


def test_strangers_of_one_shape_share_a_batch_and_the_oldest_goes_first() -> None:
    async def story(press: Press, batches: Batches) -> list[list[Event]]:
        wanted = [order(0), order(1, steps=9), order(2), order(3, steps=9), order(4), order(5), order(6)]
        return await asyncio.gather(*(all_of(batches, one) for one in wanted))

    press, answers = play(story)
    assert press.batches == [[0, 2, 4, 5], [1, 3], [6]]
    assert [answer[-1].picture for answer in answers] == [b"0", b"1", b"2", b"3", b"4", b"5", b"6"]
    assert [answer[-1].batch for answer in answers] == [4, 2, 4, 2, 4, 4, 1]


def test_those_of_the_oldest_ones_dial_go_first_and_others_fill_the_batch() -> None:
    async def story(press: Press, batches: Batches) -> list[list[Event]]:
        wanted = [order(seed, tier=tier) for seed, tier in enumerate(["low", "high", "low", "exact", "low", "high"])]
        return await asyncio.gather(*(all_of(batches, one) for one in wanted))

    press, _ = play(story)
    assert press.batches == [[0, 2, 4, 1], [3, 5]]


def test_what_arrives_meanwhile_makes_the_next_batch() -> None:
    async def story(press: Press, batches: Batches) -> None:
        press.free.clear()
        first = asyncio.create_task(all_of(batches, order(0)))
        while not press.batches:
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(all_of(batches, order(seed))) for seed in (1, 2)]
        await asyncio.sleep(0.01)
        press.free.set()
        await asyncio.gather(first, *others)

    press, _ = play(story)
    assert press.batches == [[0], [1, 2]]


def test_who_leaves_while_waiting_is_not_made_and_the_others_stay_together() -> None:
    async def story(press: Press, batches: Batches) -> list[Event]:
        press.free.clear()
        first = asyncio.create_task(all_of(batches, order(0)))
        while not press.batches:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(all_of(batches, order(seed))) for seed in (1, 2, 3)]
        await asyncio.sleep(0.01)
        waiting[1].cancel()
        await asyncio.sleep(0.01)
        press.free.set()
        return [(await task)[-1] for task in (first, waiting[0], waiting[2])]

    press, answers = play(story)
    assert press.batches == [[0], [1, 3]]
    assert [answer.picture for answer in answers] == [b"0", b"1", b"3"]


def test_who_leaves_a_batch_that_is_being_made_leaves_it_whole() -> None:
    async def story(press: Press, batches: Batches) -> list[Event]:
        press.free.clear()
        tasks = [asyncio.create_task(all_of(batches, order(seed))) for seed in (1, 2, 3)]
        while not press.batches:
            await asyncio.sleep(0.01)
        tasks[1].cancel()
        await asyncio.sleep(0.01)
        press.free.set()
        return [(await task)[-1] for task in (tasks[0], tasks[2])]

    press, answers = play(story)
    assert press.batches == [[1, 2, 3]]
    assert [(answer.picture, answer.batch) for answer in answers] == [(b"1", 3), (b"3", 3)]


def test_a_batch_that_everybody_left_is_given_up_and_the_next_is_made() -> None:
    async def story(press: Press, batches: Batches) -> list[Event]:
        press.free.clear()
        lost = asyncio.create_task(all_of(batches, order(0)))
        while not press.batches:
            await asyncio.sleep(0.01)
        lost.cancel()
        next_one = asyncio.create_task(all_of(batches, order(1, prompt="poison")))
        await asyncio.sleep(0.01)
        press.free.set()
        return await next_one

    press, answer = play(story)
    assert press.batches == [[0], [1]] and isinstance(answer[-1], Failed)


def test_progress_is_told_to_those_who_watch() -> None:
    async def story(press: Press, batches: Batches) -> list[list[Event]]:
        return await asyncio.gather(all_of(batches, order(0, watched=True)), all_of(batches, order(1)))

    _, (watching, waiting) = play(story)
    assert [event.step for event in watching if isinstance(event, Progress)] == [1, 2, 3]
    assert len(waiting) == 1 and isinstance(watching[-1], Made)


@pytest.mark.parametrize(("prompt", "kind"), [("poison", Failed), ("sour", Refused), ("unreadable", Refused)])
def test_one_that_cannot_be_made_takes_nobody_along(prompt: str, kind: type) -> None:
    async def story(press: Press, batches: Batches) -> list[list[Event]]:
        return await asyncio.gather(*(all_of(batches, order(s, prompt=prompt if s == 1 else "")) for s in (0, 1, 2)))

    press, answers = play(story)
    assert [type(answer[-1]) for answer in answers] == [Made, kind, Made]
    assert press.batches == ([[0, 2]] if prompt == "unreadable" else [[0, 1, 2], [0], [1], [2]])


def test_a_press_that_gives_too_few_is_an_error_and_not_a_wait() -> None:
    async def story(press: Press, batches: Batches) -> list[Event]:
        batches.make = lambda orders, on_step: []
        return await all_of(batches, order(0))

    _, answer = play(story)
    assert isinstance(answer[-1], Failed)
