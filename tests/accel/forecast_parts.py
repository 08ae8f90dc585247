"""What tests of a forecast's parts are made of: histories, moments, calls and steps, each by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from outpace.accel.forecast.active import Active, Branch
from outpace.accel.forecast.entries import Entry
from outpace.accel.forecast.history import History
from outpace.accel.moment import Moment
from outpace.accel.prediction import Prediction

FLOW = Prediction("flow", "flow")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moment(step: int, *, u: float = 0.5, steps: int | None = 20) -> Moment:
    return Moment(run=0, step=step, branch="0", leader=True, timestep=0.0, u=u, du=0.1, num_steps=steps)


def filled(history: History, values: dict[float, Tensor], *, firsts: bool = False) -> History:
    """A history of computed steps, pushed in the order given."""
    for step, (at, last) in enumerate(values.items()):
        history.push(at, step, last + 1 if firsts else None, last)
    return history


def call_of(samples: int, tie: int = 2, **how: Any) -> Active:
    histories = [filled(History(1, 1), {0.0: torch.zeros(1), 1.0: torch.ones(1)}) for _ in range(samples * tie)]
    return Active(SimpleNamespace(), tie, branch=Branch((), {"hidden": histories}), **how)  # type: ignore[arg-type]


def current_of(step: int, *, leader: bool = True, changed: str = "") -> Any:
    denoiser = SimpleNamespace(
        name="transformer", ranks=None, stacks=[SimpleNamespace(also=(), split=None)], keeps=lambda _named: False,
        must_compute=lambda _named: "",
    )  # fmt: skip
    at = Moment(run=0, step=step, branch="0", leader=leader, timestep=0.0, u=0.5, du=0.1, num_steps=20)
    return SimpleNamespace(
        denoiser=denoiser, moment=at, named={}, changed=changed, signature=lambda x: (tuple(x.shape),)
    )


def entry(step: int, u: float, clean: Tensor, *, computed: bool = True, seed: int = 99) -> Entry:
    seen = (1 - u) * clean + u * normal(*clean.shape, seed=seed)
    return Entry(step, u, [computed] * len(clean), seen, clean, seen, {})
