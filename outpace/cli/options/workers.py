"""`--workers` on the command line, and the processes of a launcher: who shares the work, and on which device."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from outpace.cli.options.numbers import COUNT
from outpace.errors import ConfigError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from outpace.evaluation.workers import Crew, Do

Command = TypeVar("Command", bound=Callable[..., Any])

EPILOG = """
\b
Several processes share the work, on one machine or on many that see the same folder:
  accelerate launch --multi_gpu --num_processes 2 -m outpace COMMAND ...    or torchrun --nproc-per-node 2
  outpace COMMAND ... --workers 2      Ray's workers: here, or on the cluster of RAY_ADDRESS; a killed one is replaced
"""


def workers_option(command: Command) -> Command:
    """Add `--workers` to a command."""
    return click.option(
        "--workers",
        type=COUNT,
        metavar="N",
        help="Share the work between N workers of Ray [default: this process does it].",
    )(command)


def check_workers(workers: int | None, prompts: str | None) -> None:
    """What can be said before anything is loaded.

    Raises: MissingDependencyError, ConfigError, InputError where the work could not be shared as asked.
    """
    from outpace.evaluation.workers import is_launched

    if workers and importlib.util.find_spec("ray") is None:
        raise MissingDependencyError("--workers needs Ray: pip install 'outpace[ray]'")
    if workers and is_launched():
        raise ConfigError("--workers inside a launched group would share the work twice; leave one of the two out")
    if is_launched() and prompts == "-":
        raise InputError("several processes cannot read one standard input; write the prompts to a file")


def device_of_process(device: str) -> str:
    """`device`, and in a launched group a GPU of this process's own where "auto" or "cuda" is asked for."""
    import torch

    from outpace.evaluation.workers import is_launched

    if not is_launched() or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    place = int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()
    torch.cuda.set_device(place)
    return f"cuda:{place}"


def crew_of(do: Do, prepare: Callable[[], Do], workers: int | None, device: str) -> Crew:
    """Who shares the work: the workers of Ray that are asked for, the group that was launched, or this process.

    Args:
        do: does a job in this process.
        prepare: makes the same in another one; it must survive pickling.
        device: where the pipeline is.
    """
    from outpace.evaluation.workers import Alone, Launched, RayCrew, is_launched

    if workers:
        return RayCrew(prepare, workers, gpu=device.startswith("cuda"))
    return Launched(do) if is_launched() else Alone(do)
