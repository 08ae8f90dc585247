"""Workers of Ray, on this machine or on a cluster: each takes the next job, and a killed one's job is done again."""

from __future__ import annotations

import importlib
import os
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, redirect_stdout
from typing import Any

from ...errors import ConfigError, InputError, MeasurementError, MissingDependencyError
from .crew import Do, Job

RETRIES = 3
"""How often a job is done again after its worker died; what kills four workers is not chance."""

OBJECT_STORE_BYTES = 80 * 2**20
"""Of a local Ray: jobs are a few words, so it takes the least that Ray allows, and a small /dev/shm will do."""

ANSWER_SECONDS = 10
"""How long the head of a cluster may take to accept a connection."""


class Worker:
    """One process of the crew: it prepares at its first job, so that what fails there is that job's error.

    Args:
        prepare: returns what does jobs; it must survive pickling.
        folder: where to work, so that relative paths mean what they mean to the leading process.
    """

    def __init__(self, prepare: Callable[[], Do], folder: str) -> None:
        self.prepare, self.folder = prepare, folder
        self.doing: Do | None = None

    def do(self, job: Job) -> Any:
        if self.doing is None:
            if not os.path.isdir(self.folder):
                raise InputError(
                    f"{socket.gethostname()} has no folder {self.folder}; start in one that all machines see"
                )
            os.chdir(self.folder)
            self.doing = self.prepare()
        return self.doing(job)


class RayCrew:
    """Some workers of a Ray cluster: that of RAY_ADDRESS, or else a local one for as long as the work takes.

    Args:
        prepare: called once in each worker, returns what does jobs; it must survive pickling.
        workers: how many.
        gpu: give each a GPU of its own.

    Raises: MissingDependencyError where Ray is not installed.
    """

    leads = True

    def __init__(self, prepare: Callable[[], Do], workers: int, *, gpu: bool = False) -> None:
        try:
            self.ray = import_ray()
        except ImportError as error:
            raise MissingDependencyError("several workers need Ray: pip install 'outpace[ray]'") from error
        self.prepare, self.size, self.gpu = prepare, workers, gpu
        self.actors: list[Any] = []
        self.at_close = ExitStack()

    def work(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        waiting = deque(jobs)
        running: dict[Any, tuple[Any, Job]] = {}
        idle = list(self.start() if waiting else ())
        while waiting or running:
            while waiting and idle:
                actor, job = idle.pop(), waiting.popleft()
                running[actor.do.remote(job)] = (actor, job)
            (done,), _ = self.ray.wait(list(running), num_returns=1)
            actor, job = running.pop(done)
            yield job, self.value_of(done, job)
            idle.append(actor)

    def start(self) -> list[Any]:
        """The workers, from the first job on.

        Raises: InputError where the cluster of RAY_ADDRESS is out of reach; ConfigError where it is too small.
        """
        if not self.actors:
            # Ray tells of dead workers on standard output, which belongs to the answer.
            self.at_close.enter_context(redirect_stdout(sys.stderr))
            if not self.ray.is_initialized():
                join(self.ray, self.size)
                self.at_close.callback(self.ray.shutdown)
            self.check_room()
            options = {"num_cpus": 1, "num_gpus": int(self.gpu), "max_restarts": -1, "max_task_retries": RETRIES}
            remote = self.ray.remote(**options)(Worker)
            self.actors = [remote.remote(self.prepare, os.getcwd()) for _ in range(self.size)]
        return self.actors

    def check_room(self) -> None:
        """Raises: ConfigError where the cluster could never hold the workers: they would wait for ever."""
        room = self.ray.cluster_resources()
        for name, needed in (("CPU", self.size), ("GPU", self.size if self.gpu else 0)):
            if room.get(name, 0) < needed:
                raise ConfigError(
                    f"--workers {self.size}: each needs a {name}, and Ray has {room.get(name, 0):g}; ask for fewer"
                )

    def value_of(self, done: Any, job: Job) -> Any:
        """What the job returned; what it raised is raised as it was.

        Raises: MeasurementError where it killed every worker that tried.
        """
        errors = self.ray.exceptions
        try:
            return self.ray.get(done)
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except errors.RayError as error:
            raise MeasurementError(
                f"{RETRIES + 1} workers died over {job}: {str(error).splitlines()[0]}; is there memory for {self.size}?"
            ) from error

    def close(self) -> None:
        for actor in self.actors:
            self.ray.kill(actor)
        self.actors = []
        self.at_close.close()


def import_ray() -> Any:
    """Ray, which reads at its import whether a token is wanted.

    A local Ray listens at every address of the machine; a token that only its own processes know keeps others out.

    Raises: ImportError where it is not installed.
    """
    if not any(name in os.environ for name in ("RAY_ADDRESS", "RAY_AUTH_MODE")) and "ray" not in sys.modules:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    return importlib.import_module("ray")


def join(ray: Any, cpus: int) -> None:
    """Join the cluster of RAY_ADDRESS, or start a local Ray with so many CPUs.

    Raises: InputError where neither works.
    """
    address = os.environ.get("RAY_ADDRESS")
    local = {
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_system_config": {"worker_niceness": 0},  # by default workers give way to whatever else runs
    }
    if address:
        check_reachable(address)
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="error",
            **({} if address else local),
        )
    except Exception as error:  # a start that takes too long is a bare one
        where = f"cannot join the Ray cluster of {address}" if address else "Ray does not start here"
        raise InputError(f"{where}: {error}; leave --workers out, or share the work with torchrun") from error


def check_reachable(address: str) -> None:
    """Ask for a connection first: Ray itself goes on trying a cluster that is not there for many minutes.

    Raises: InputError where nothing answers at HOST:PORT.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
        except OSError as error:
            raise InputError(
                f"nothing answers at RAY_ADDRESS={address} ({error.strerror or error}); start the cluster, or unset it "
                "to work on this machine"
            ) from error
