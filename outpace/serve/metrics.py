"""What Prometheus is told of a server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from outpace.serve.orders import Made

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Metrics:
    """Counts of one server, in a registry of its own.

    Args:
        waiting: gives the number of pictures accepted and not answered.
        ready: gives the number of engines that could take an order.
    """

    def __init__(self, waiting: Callable[[], int], ready: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        Gauge("outpace_queue_pictures", "Pictures accepted and not answered yet", registry=registry).set_function(
            waiting
        )
        Gauge("outpace_engines_ready", "Engines that can take an order", registry=registry).set_function(ready)
        self.answers = Counter("outpace_answers", "Answers by status of HTTP", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "outpace_latency_seconds",
            "From a request's arrival to its answer",
            ["tier"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "outpace_batch_pictures",
            "Pictures made together, counted once for each of them",
            buckets=SIZES,
            registry=registry,
        )
        self.pictures = Counter("outpace_pictures", "Pictures made", ["tier"], registry=registry)
        self.share = Counter(
            "outpace_blocks_computed_share",
            "Shares of a picture's blocks that were computed, added up: over outpace_pictures it is their mean",
            ["tier"],
            registry=registry,
        )

    def made(self, made: Made, tier: str) -> None:
        """A picture is done."""
        self.batch.observe(made.batch)
        self.pictures.labels(tier).inc()
        self.share.labels(tier).inc(made.computed["share"])

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
