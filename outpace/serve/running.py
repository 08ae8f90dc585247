"""From settings to a server that answers until it is told to stop."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing

from outpace.errors import InputError
from outpace.serve.app import ServeSettings, create_app
from outpace.serve.engine import EngineSettings
from outpace.serve.local import LocalMaker
from outpace.serve.orders import Maker
from outpace.serve.replicas import RayMaker

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def run(host: str, port: int, make: Callable[[], Maker], settings: ServeSettings, told: Callable[[str], None]) -> None:
    """Serve what `make` makes, until Ctrl-C or SIGTERM.

    Args:
        make: called once the address is taken, so that nothing is loaded in vain.
        told: is told the address as soon as clients may connect.

    Raises: InputError where the address cannot be had; what `make` raises.
    """
    import uvicorn

    with bound(host, port) as listening, closing(make()) as maker:
        app = create_app(maker, settings)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn ends itself, then passes the signal on
        listening.listen(2048)
        told(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """A socket at this address. Raises: InputError where it cannot be had."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InputError(f"cannot listen at {host}:{port}: {error.strerror}; choose another --port") from error
    return listening


def make_maker(engine: EngineSettings, replicas: int, size: int, patience: float) -> Maker:
    """Engines: so many replicas of Ray Serve, or one in this process where there are to be none.

    Raises: as `LocalMaker` and `RayMaker`.
    """
    if not replicas:
        return LocalMaker(engine, size=size, patience=patience)
    import torch

    gpus = int(engine.device.startswith("cuda") or (engine.device == "auto" and torch.cuda.is_available()))
    return RayMaker(engine, replicas=replicas, size=size, patience=patience, gpus=gpus)
