"""A maker in this process: one engine, no replicas, no Ray."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from outpace.serve.batches import Batches
from outpace.serve.engine import Engine, EngineSettings
from outpace.serve.orders import Event, Order


class LocalMaker:
    """Makes orders with an engine of this process.

    Args:
        size: orders in a batch at most.
        patience: seconds that an order waits for company.

    Raises: as `Engine`.
    """

    def __init__(self, settings: EngineSettings, *, size: int = 8, patience: float = 0.02) -> None:
        self.engine = Engine(settings)
        self.about = self.engine.about
        self.batches = Batches(self.engine.make, self.engine.shape, size=size, patience=patience)

    def events(self, order: Order) -> AsyncGenerator[Event, None]:
        return self.batches.events(order)

    def health(self) -> dict[str, Any]:
        return {"ready": 1, "wanted": 1}

    def close(self) -> None:
        self.batches.close()
        self.engine.close()
