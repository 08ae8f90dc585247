"""Independent pieces of one call, each on one thread, as many at a time as torch has threads for an operation.

Torch shares out every operation by itself and waits for all threads at its end. A kernel of many small operations
waits more than it works; where it falls into independent pieces, sharing out those waits once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

Piece = TypeVar("Piece")

_pools: dict[int, ThreadPoolExecutor] = {}
"""By the number of threads. They stay, and with them the buffers that a kernel keeps for a thread."""
_making = threading.Lock()
CPU = torch.device("cpu")


def share_out(run: Callable[[Piece], object], pieces: Sequence[Piece], device: torch.device = CPU) -> None:
    """Call `run` with every piece: in any order, several at a time, on other threads than this one.

    Pieces run here, one after the other, with torch sharing out their operations, where they are fewer than torch has
    threads (`torch.get_num_threads`), where threads of OpenMP that wait keep their core from the pieces
    (OMP_WAIT_POLICY=active), and on another device, whose stream of the moment other threads do not have. So do those
    that no thread can be had for: the interpreter ends, or the system starts no more.

    Args:
        device: that the pieces work on.

    Raises: what `run` raised for the first piece that failed, once none is running any more.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(pieces) < threads or device.type != "cpu" or _stays_here():
        for piece in pieces:
            run(piece)
        return
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def as_here(piece: Piece) -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            run(piece)

    started: list[Future[None]] = []
    try:
        pool = _pool(threads)
        for piece in pieces:
            started.append(pool.submit(as_here, piece))
    except RuntimeError:  # no thread can be had
        for piece in pieces[len(started) :]:
            run(piece)
    finally:
        wait(started)
        while started:  # an error that this frame kept hold of would keep hold of the frame, and of all tensors in it
            started.pop(0).result()


def _stays_here() -> bool:
    """Whether threads would be in each other's way, or something of this one has to see every operation."""
    spinning = os.environ.get("OMP_WAIT_POLICY", "").strip().lower() == "active"
    return spinning or torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None


def _pool(threads: int) -> ThreadPoolExecutor:
    with _making:
        if threads not in _pools:
            _pools[threads] = _with_one_thread_each(threads)
        return _pools[threads]


def _with_one_thread_each(threads: int) -> ThreadPoolExecutor:
    """A pool of `threads` threads whose operations take one each.

    Torch keeps that number for a thread, and another that a thread takes over when it asks for the first time. Who
    sets it sets both: so a thread asks before it sets, and the second is put back once all have.
    """
    all_here = threading.Barrier(threads)

    def begin(_: int) -> None:
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_here.wait()

    pool = ThreadPoolExecutor(threads, "outpace-kernels")
    try:
        wait([pool.submit(begin, number) for number in range(threads)])
    except RuntimeError:  # one could not be started: the others would wait for it for ever
        all_here.abort()
        pool.shutdown()
        raise
    finally:
        torch.set_num_threads(threads)
    return pool


def _in_a_forked_process() -> None:
    _pools.clear()  # it has none of the threads
    _making.release()


if hasattr(os, "register_at_fork"):  # Windows has none; no pool is half made, and torch's number of threads not 1, then
    os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_in_a_forked_process)
