"""Engines in processes of their own, kept by Ray Serve: on this machine, or on the cluster of RAY_ADDRESS.

Ray Serve starts the replicas, sends each order to one of them, and puts another in the place of one that died. An order
whose replica died is sent again as it was: its seed was drawn before, so that the picture is the same.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Any

from outpace.errors import MissingDependencyError, OutpaceError
from outpace.serve.batches import Batches
from outpace.serve.engine import Engine, EngineSettings
from outpace.serve.orders import About, Event, Failed, Order, Progress

log = logging.getLogger("outpace.serve")

DEPLOYMENT = "engine"
TRIES = 5
"""How often an order is sent; what kills so many replicas is not chance."""

HEALTH_SECONDS = 2.0
"""How often Ray Serve asks whether a replica still lives."""


class Replica:
    """One engine behind Ray Serve."""

    def __init__(self, settings: EngineSettings, size: int, patience: float) -> None:
        self.problem: OutpaceError | None = None
        try:
            self.engine = Engine(settings)
        except OutpaceError as error:  # told by `about`; Ray Serve would start it again and again
            self.problem = error
            return
        self.batches = Batches(self.engine.make, self.engine.shape, size=size, patience=patience)

    async def about(self) -> About | OutpaceError:
        return self.problem or self.engine.about

    async def events(self, order: Order) -> AsyncGenerator[Event, None]:
        async with aclosing(self.batches.events(order)) as events:
            async for event in events:
                yield event


class RayMaker:
    """Makes orders with replicas of Ray Serve.

    Args:
        replicas: how many.
        size: orders in a batch of one replica at most.
        patience: seconds that an order waits for company.
        gpus: of each replica.

    Raises: MissingDependencyError where Ray Serve is not installed; as `join` and `Engine`.
    """

    def __init__(
        self, settings: EngineSettings, *, replicas: int, size: int = 8, patience: float = 0.02, gpus: float = 0
    ) -> None:
        from outpace.evaluation.workers.ray_crew import import_ray, join

        try:
            self.ray: Any = import_ray()
            self.serve: Any = importlib.import_module("ray.serve")
        except ImportError as error:
            raise MissingDependencyError("replicas need Ray Serve: pip install 'outpace[serve]'") from error
        self.unavailable: Any = importlib.import_module("ray.serve.exceptions").DeploymentUnavailableError
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self.name, self.replicas = f"outpace-{secrets.token_hex(4)}", replicas
        self.at_close = ExitStack()
        try:
            if not self.ray.is_initialized():
                join(self.ray, replicas)
                self.at_close.callback(self.ray.shutdown)
            self.serve.start(proxy_location="Disabled")
            if os.environ.get("RAY_ADDRESS"):  # a local Ray takes its replicas along
                self.at_close.callback(self.serve.delete, self.name)
            deployment = self.serve.deployment(Replica).options(
                name=DEPLOYMENT,
                num_replicas=replicas,
                max_ongoing_requests=4 * size,  # while one batch is made, the next ones gather
                max_queued_requests=-1,  # the room of the HTTP side holds fewer
                health_check_period_s=HEALTH_SECONDS,
                health_check_timeout_s=30.0,
                graceful_shutdown_timeout_s=5.0,
                ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
            )
            handle = self.serve.run(deployment.bind(settings, size, patience), name=self.name, route_prefix=None)
            about = handle.about.remote().result(timeout_s=300.0)
            if isinstance(about, OutpaceError):
                raise about
            self.about: About = about
            self.handle = handle.options(stream=True)
        except Exception:
            self.close()
            raise

    async def events(self, order: Order) -> AsyncGenerator[Event, None]:
        errors = self.ray.exceptions
        seen = 0
        for attempt in range(TRIES):
            stream = self.handle.events.remote(order)
            try:
                async for event in stream:
                    if isinstance(event, Progress):
                        if event.step <= seen:
                            continue
                        seen = event.step
                    yield event
                    if not isinstance(event, Progress):
                        return
            except (errors.RayActorError, errors.WorkerCrashedError, errors.NodeDiedError, self.unavailable) as error:
                log.warning("a replica died over an order, which is sent again: %s", type(error).__name__)
                await asyncio.sleep(0.2 * (attempt + 1))
            finally:
                stream.cancel()
        yield Failed(message=f"{TRIES} replicas died over it")

    def health(self) -> dict[str, Any]:
        deployments = self.serve.status().applications[self.name].deployments
        states = deployments[DEPLOYMENT].replica_states if DEPLOYMENT in deployments else {}
        return {"ready": int(states.get("RUNNING", 0)), "wanted": self.replicas}

    def close(self) -> None:
        self.at_close.close()
