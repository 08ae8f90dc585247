"""Spectrum: the last block's output as Chebyshev polynomials of the step, fitted by ridge regression over all anchors.

Source: Han et al., "Adaptive Spectral Feature Forecasting for Diffusion Sampling Acceleration", CVPR 2026,
arXiv:2603.01623; settings and the mixture with a line are those of its published program (five steps of warm-up, four
polynomials above the constant, a ridge of 0.1, an interval of 2 that grows). Differs from it: the fit is solved in
float64, not bfloat16, and steps are scaled by how many there are, which is the same at 50.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from .intercept import Call, blocks_replaced
from .peer import PEERS, Peer


def chebyshev(points: torch.Tensor, degree: int) -> torch.Tensor:
    """T_0 to T_degree at `points` in -1..1: (points, degree + 1)."""
    columns = [torch.ones_like(points), points]
    while len(columns) <= degree:
        columns.append(2 * points * columns[-1] - columns[-2])
    return torch.stack(columns[: degree + 1], -1)


def ridge_forecast(
    steps: list[float], features: torch.Tensor, at: float, *, of: float, degree: int = 4, ridge: float = 0.1
) -> torch.Tensor:
    """The feature at step `at`, from a ridge fit of Chebyshev polynomials to those of `steps`.

    Args:
        features: (steps, ...).
        of: the number of steps, which is where 1 lies; -1 lies at step 0.
    """
    scaled = torch.tensor([*steps, at], dtype=torch.float64) * 2 / of - 1
    design = chebyshev(scaled, degree)  # so few numbers that doubles cost nothing
    known, wanted = design[:-1], design[-1:]
    gram = known.T @ known + ridge * torch.eye(degree + 1, dtype=torch.float64)
    # wanted (K'K + rI)^-1 K' is one weight an anchor: the features are gone over once.
    weights = (wanted @ torch.linalg.solve(gram, known.T))[0]
    return torch.tensordot(weights.to(features), features, 1)


class Spectrum:
    """The rule of one run."""

    def __init__(self, *, steps: int, window: float, growth: float, share: float = 1.0, warmup: int = 5) -> None:
        self.steps, self.window, self.growth, self.share, self.warmup = steps, window, growth, share, warmup
        self.skipped, self.computing = 0, True
        self.anchors: dict[int, list[tuple[float, torch.Tensor]]] = {}

    def computes(self, call: Call) -> bool:
        if call.branch:
            return self.computing  # the branches of a step are decided together
        self.computing = call.step < self.warmup or (self.skipped + 1) % math.floor(self.window) == 0
        if self.computing and call.step >= self.warmup:
            self.window += self.growth
        self.skipped = 0 if self.computing else self.skipped + 1
        return self.computing

    def keep(self, call: Call, made: torch.Tensor) -> None:
        self.anchors.setdefault(call.branch, []).append((float(call.step), made))

    def replaces(self, call: Call) -> torch.Tensor:
        steps, features = zip(*self.anchors[call.branch], strict=True)
        held = torch.stack(features)
        global_fit = ridge_forecast(list(steps), held, float(call.step), of=float(self.steps))
        if self.share == 1.0 or len(steps) < 2:
            return global_fit
        beyond = (call.step - steps[-1]) / (steps[-1] - steps[-2])
        line = features[-1] + beyond * (features[-1] - features[-2])
        return self.share * global_fit + (1 - self.share) * line


def apply(pipe: Any, *, growth: float, steps: int, share: float = 1.0) -> AbstractContextManager[Any]:
    """`pipe` forecast by Spectrum, its interval starting at 2 and growing by `growth` at every computed step."""
    return blocks_replaced(pipe, Spectrum(steps=steps, window=2.0, growth=growth, share=share))


def _steps(pipe: Any, steps: int, run: Any) -> dict[str, int]:
    return {"steps": steps}


GROWTH = tuple({"growth": g} for g in (0.0, 0.25, 0.75, 1.5, 3.0))
PEERS.add("spectrum", Peer(label="Spectrum", settings=GROWTH, apply=apply, prepare=_steps))
PEERS.add(
    "spectrum-mixed",
    Peer(label="Spectrum, half a line", settings=GROWTH, apply=partial(apply, share=0.5), prepare=_steps),
)
