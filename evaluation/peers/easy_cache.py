"""EasyCache: the denoiser's output less its input is reused while the output is expected to have changed little.

Source: Zhou et al., "Less is Enough: Training-Free Video Diffusion Acceleration via Runtime-Adaptive Caching", 2025,
arXiv:2507.02860. How much the output changes for a change of the input is taken from the last two computed steps; the
expected relative changes add up until they reach the threshold. Warm-up 10 of 50 steps as published, its share here;
the last step is computed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from ...errors import UnsupportedModelError
from .intercept import Call, calls_replaced
from .peer import PEERS, Peer


def mean_change(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean absolute difference."""
    return float((one - other).abs().mean())


class EasyCache:
    """The rule of one run. The first guidance branch decides, the others follow."""

    def __init__(self, *, steps: int, threshold: float, warmup: int) -> None:
        self.steps, self.threshold, self.warmup = steps, threshold, warmup
        self.expected, self.computing = 0.0, True
        self.rate: float | None = None
        """Change of the output for a change of the input."""
        self.seen: torch.Tensor | None = None
        """Input of the last step, computed or not."""
        self.anchor: torch.Tensor | None = None
        """Input of the last computed step."""
        self.made: torch.Tensor | None = None
        """Its output."""
        self.added: dict[int, torch.Tensor] = {}
        """Output less input of the last computed step, by branch."""

    def computes(self, call: Call) -> bool:
        if call.branch:
            return self.computing
        self.computing = True
        if self.warmup <= call.step < self.steps - 1 and self.rate is not None and self.made is not None:
            moved = mean_change(call.hidden, self.seen) if self.seen is not None else 0.0
            self.expected += self.rate * moved / max(float(self.made.abs().mean()), 1e-12)
            self.computing = self.expected >= self.threshold
        if self.computing:
            self.expected = 0.0
        self.seen = call.hidden
        return self.computing

    def keep(self, call: Call, made: torch.Tensor) -> None:
        if made.shape != call.hidden.shape:
            raise UnsupportedModelError(
                f"EasyCache needs an output of the input's shape; {tuple(call.hidden.shape)} became {tuple(made.shape)}"
            )
        self.added[call.branch] = made - call.hidden
        if call.branch:
            return
        if self.made is not None and self.anchor is not None:
            moved = mean_change(call.hidden, self.anchor)
            self.rate = mean_change(made, self.made) / moved if moved else 0.0
        self.anchor, self.made = call.hidden, made

    def replaces(self, call: Call) -> torch.Tensor:
        return call.hidden + self.added[call.branch]


def apply(pipe: Any, *, threshold: float, steps: int) -> AbstractContextManager[Any]:
    """`pipe` with EasyCache on. One decision for a batch, so give it one sample."""
    return calls_replaced(pipe, EasyCache(steps=steps, threshold=threshold, warmup=max(2, steps // 5)))


PEERS.add(
    "easycache",
    Peer(
        label="EasyCache",
        settings=tuple({"threshold": t} for t in (0.025, 0.05, 0.1, 0.2, 0.4)),
        apply=apply,
        prepare=lambda pipe, steps, run: {"steps": steps},
        batch=1,
    ),
)
