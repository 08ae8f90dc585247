"""After TeaCache: what the blocks add is reused while the first block's modulated input has changed little in all.

Source: Liu et al., "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model", CVPR 2025,
arXiv:2411.19108. Its published polynomials, from the input's relative change to the output's, belong to published
models; here one of the same degree is fitted to one run of a prompt that is not compared. Where the first block's norm
takes no modulation (Wan), the embedding of the timestep is the signal, as published for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from ...errors import MeasurementError, UnsupportedModelError
from .intercept import Call, blocks_replaced
from .peer import PEERS, Peer

DEGREE = 4


def signal(call: Call) -> torch.Tensor:
    """The modulated input of the first block. Raises: UnsupportedModelError where it has none that is known."""
    norm = getattr(call.block, "norm1", None)
    embedding = call.argument("temb")
    takes = inspect.signature(norm.forward).parameters if norm is not None else {}
    if embedding is not None and "emb" in takes:
        return norm(call.hidden, emb=embedding)[0]  # pyright: ignore[reportOptionalCall]
    if embedding is not None:
        return embedding
    if "class_labels" in takes:
        given = {"timestep": call.argument("timestep"), "class_labels": call.argument("class_labels")}
        return norm(call.hidden, **given, hidden_dtype=call.hidden.dtype)[0]  # pyright: ignore[reportOptionalCall]
    raise UnsupportedModelError(f"{type(call.block).__name__} has no modulated input that TeaCache could follow")


def relative_change(now: torch.Tensor, before: torch.Tensor) -> float:
    """Mean absolute difference as a share of the mean absolute value before."""
    return float((now - before).abs().mean() / before.abs().mean())


class TeaCache:
    """The rule of one run."""

    def __init__(self, *, steps: int, threshold: float, coefficients: list[float]) -> None:
        self.steps, self.threshold, self.rescaled = steps, threshold, np.poly1d(coefficients)
        self.seen: dict[int, torch.Tensor] = {}
        self.total: dict[int, float] = {}
        self.added: dict[int, torch.Tensor] = {}

    def computes(self, call: Call) -> bool:
        now, branch = signal(call), call.branch
        before = self.seen.get(branch)
        self.seen[branch] = now
        if before is not None and 0 < call.step < self.steps - 1:
            self.total[branch] = self.total.get(branch, 0.0) + float(self.rescaled(relative_change(now, before)))
            if self.total[branch] < self.threshold:
                return False
        self.total[branch] = 0.0
        return True

    def keep(self, call: Call, made: torch.Tensor) -> None:
        self.added[call.branch] = made - call.hidden

    def replaces(self, call: Call) -> torch.Tensor:
        return call.hidden + self.added[call.branch]


class Watching:
    """Computes everything and notes how far the signal and the blocks' output move from step to step."""

    def __init__(self) -> None:
        self.before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.now: dict[int, torch.Tensor] = {}
        self.pairs: list[tuple[float, float]] = []

    def computes(self, call: Call) -> bool:
        self.now[call.branch] = signal(call)
        return True

    def keep(self, call: Call, made: torch.Tensor) -> None:
        now = self.now[call.branch]
        if call.branch in self.before:
            old, output = self.before[call.branch]
            self.pairs.append((relative_change(now, old), relative_change(made, output)))
        self.before[call.branch] = now, made

    def replaces(self, call: Call) -> torch.Tensor:
        raise MeasurementError("a run that is only watched replaces nothing")


def fitted(pipe: Any, steps: int, run: Callable[[], object]) -> dict[str, Any]:
    """The polynomial from one run. Raises: MeasurementError for too few steps to fit it."""
    rule = Watching()
    with blocks_replaced(pipe, rule):
        run()
    if len(rule.pairs) <= DEGREE:
        raise MeasurementError(f"{len(rule.pairs)} changes of {steps} steps are too few for TeaCache's polynomial")
    moved, changed = np.array(rule.pairs).T
    return {"steps": steps, "coefficients": np.polyfit(moved, changed, DEGREE).tolist()}


def apply(pipe: Any, *, threshold: float, steps: int, coefficients: list[float]) -> AbstractContextManager[Any]:
    """`pipe` with the cache on. One decision for a batch, so give it one sample."""
    return blocks_replaced(pipe, TeaCache(steps=steps, threshold=threshold, coefficients=coefficients))


PEERS.add(
    "teacache",
    Peer(
        label="after TeaCache",
        settings=tuple({"threshold": t} for t in (0.05, 0.1, 0.2, 0.4, 0.8)),
        apply=apply,
        prepare=fitted,
        batch=1,
    ),
)
