"""Where the time of a call goes: text encoding, denoising and decoding apart, of each timed contender.

A cache can only shorten denoising. What it gains end to end depends on the rest, which this shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

Parts = Mapping[str, tuple[Any, str]]
"""Name of a stage -> the object and the name of its method that does it."""


@contextmanager
def watched(parts: Parts, device: str = "cpu") -> Iterator[dict[str, float]]:
    """While open, adds up the seconds spent in each of `parts`; those that are never called stay out."""
    spent: dict[str, float] = {}
    replaced: list[tuple[Any, str, Any]] = []

    def timing(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = now(device)
            try:
                return method(*args, **kwargs)
            finally:
                spent[name] = spent.get(name, 0.0) + now(device) - begun

        return timed

    try:
        for name, (owner, method) in parts.items():
            replaced.append((owner, method, vars(owner).get(method)))
            setattr(owner, method, timing(name, getattr(owner, method)))
        yield spent
    finally:
        for owner, method, had in reversed(replaced):
            delattr(owner, method)
            if had is not None:
                setattr(owner, method, had)


def now(device: str) -> float:
    """Seconds, after what was queued on the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def stages_of(run: Callable[[], object], parts: Parts, device: str = "cpu") -> dict[str, float] | None:
    """Seconds of one run by stage: those of `parts`, "denoising" for the rest, "whole" for all of it.

    None where no part was called: it then ran on another pipeline than the parts belong to.
    """
    with watched(parts, device) as spent:
        begun = now(device)
        run()
        whole = now(device) - begun
    if not spent:
        return None
    return {**spent, "denoising": max(0.0, whole - sum(spent.values())), "whole": whole}
