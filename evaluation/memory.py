"""How much memory a call takes at its peak, beyond what was held before it: what a cache costs, and what it saves."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
HIGH_WATER = Path("/proc/self/clear_refs")
COARSE = 2**20
"""Bytes under which a peak says nothing: the system counts resident memory in steps about as large."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """The memory of one call, in bytes."""

    peak: int | None = None
    """The most that was held at once: allocated on the device, or resident in the process on a CPU."""

    before: int | None = None
    """What was held when the call began: the weights, and on a CPU the libraries."""

    missing: str | None = None
    """Why there is no figure, where there is none."""

    def as_dict(self) -> dict[str, Any]:
        """The fields, and "above": what the call took on top."""
        above = None if self.peak is None or self.before is None else max(0, self.peak - self.before)
        return asdict(self) | {"above": above}


def peak_memory(call: Callable[[], object], device: str = "cpu") -> Memory:
    """Run `call` once and see how far memory rises. Warm up before: a first call loads libraries and compiles.

    On CUDA that is what torch allocated, so other programs do not count. On a CPU it is resident memory, of which only
    Linux resets the high-water mark; what was freed earlier is handed back first, or the call would reuse it unseen.
    """
    if device.startswith("cuda"):
        return peak_of_device(call, device)
    if device != "cpu":
        return Memory(missing=f"peak memory is not measured on {device}")
    if not sys.platform.startswith("linux"):
        return Memory(missing="only Linux resets the high-water mark of a process's memory")
    return peak_of_process(call)


def peak_of_device(call: Callable[[], object], device: str) -> Memory:
    """What torch allocates on a CUDA device."""
    import torch

    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return Memory(peak=torch.cuda.max_memory_allocated(device), before=before)


def peak_of_process(call: Callable[[], object]) -> Memory:
    """The high-water mark of this process's resident memory."""
    gc.collect()
    release_freed()
    try:
        HIGH_WATER.write_text("5", encoding="ascii")
        before = resident("VmRSS")
        call()
        return Memory(peak=resident("VmHWM"), before=before)
    except OSError as error:
        return Memory(missing=f"the system does not reset the high-water mark of memory: {error.strerror}")


def release_freed() -> None:
    """Hand freed memory back to the system, where the C library has a call for it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident(entry: str) -> int:
    """Bytes that /proc/self/status tells under `entry`."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{entry}:"))


def ratio_to_plain(memory: dict[str, Any], plain: dict[str, Any]) -> float | None:
    """How many times the plain pipeline's memory above what was held before; None where either is not measurable.

    Args:
        memory, plain: what `Memory.as_dict` gave.
    """
    if memory["above"] is None or plain["above"] is None or plain["above"] < COARSE:
        return None
    return memory["above"] / plain["above"]
