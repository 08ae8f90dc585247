"""A server in a thread, over a maker that draws nothing or over a real engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import uvicorn

from outpace.serve.app import ServeSettings, create_app
from outpace.serve.orders import About, Event, Failed, Made, Order, Progress, Refused
from outpace.serve.pictures import encode

ABOUT = About(
    pipeline="toy",
    steps=10,
    size=(16, 24),
    sized=True,
    multiple=8,
    guided=True,
    tiers=dict.fromkeys(("exact", "high", "medium", "low"), "a dial"),
    edits=True,
    masks=True,
    example="a line",
)


class Toy:
    """A maker whose pictures are a colour a seed. Prompts that begin with a word do as it says: refuse, fail, wait."""

    def __init__(self) -> None:
        self.about = ABOUT
        self.orders: list[Order] = []
        self.gone = 0
        self.ready = 1

    async def events(self, order: Order) -> AsyncIterator[Event]:
        self.orders.append(order)
        word = order.prompt.split()[0]
        try:
            if word == "wait":
                await asyncio.sleep(60)
            if word == "refuse":
                yield Refused(message="no such word")
            elif word == "fail":
                yield Failed(message="a trace of /secret/place.py")
            elif word == "burst":
                raise RuntimeError("/secret/place.py")
            else:
                for step in range(order.steps if order.watched else 0):
                    yield Progress(step=step + 1, steps=order.steps)
                yield made(order)
        except (asyncio.CancelledError, GeneratorExit):
            self.gone += 1
            raise

    def health(self) -> dict[str, Any]:
        return {"ready": self.ready, "wanted": 1}

    def close(self) -> None:
        return None


def made(order: Order, batch: int = 1) -> Made:
    """A picture whose colour tells its seed."""
    picture = np.full((order.height or 16, order.width or 24, 3), (order.seed % 256) / 255, np.float32)
    recipe = {"prompt": order.prompt, "seed": order.seed}
    computed = {"share": 0.5, "steps": [{"computed": step % 2 == 0, "reason": "r"} for step in range(order.steps)]}
    return Made(
        picture=encode(picture, order.format, recipe), recipe=recipe, computed=computed, batch=batch, seconds=0.1
    )


@contextmanager
def served(maker: Any, settings: ServeSettings | None = None) -> Iterator[str]:
    """The address of a server that lives as long as the block."""
    config = uvicorn.Config(create_app(maker, settings), port=0, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(200):
        if server.started or not thread.is_alive():
            break
        time.sleep(0.05)
    assert server.started
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture
def toy() -> Toy:
    """A maker of coloured pictures."""
    return Toy()


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[str]]:
    """`serve(maker, settings)` gives the address of a server that lives as long as the block."""
    return served
