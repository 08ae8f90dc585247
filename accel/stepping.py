"""A pipeline's scheduler whose steps another solver takes, and the way back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers.utils import BaseOutput

from ..errors import ConflictError
from .multistep import Multistep
from .part import Current, Part, Shared
from .prediction import Prediction
from .tap import Tap


@dataclass
class Stepped(BaseOutput):
    """What a step returns where no tuple is asked for."""

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


class Stepping(Part):
    """Takes the steps of a pipeline's scheduler with a multistep solver; the scheduler stays, and stays whole.

    Args:
        solver: "dpm++" or "unipc".
    """

    place = "solver"
    holds_denoisers = False

    def __init__(self, solver: str, shared: Shared) -> None:
        super().__init__(shared)
        self._name = solver
        self._target: Any = None
        self._tap: Tap | None = None
        self._timesteps: Any = None
        """The timesteps that the solver follows, told apart from others by identity."""
        self._times: list[float] = []

    def hold(self, target: Any) -> None:
        own = getattr(target, "scheduler", None)
        if own is None:
            raise ConflictError("Solver takes the steps of a pipeline's scheduler; give accelerate the pipeline")
        prediction = Prediction.of(own) if reason_against(own) is None else None
        if prediction is None:
            reason = reason_against(own) or f"the solvers do not know what {type(own).__name__} predicts"
            raise ConflictError(f"{reason}; keep the pipeline's own scheduler")
        self._target = target
        self.shared.solver = Multistep(own, prediction, self._name)
        self._tap = Tap(own, "step", self._step)

    def begin(self, current: Current) -> None:
        if self._tap is not None and getattr(self._target, "scheduler", None) is not self._tap.owner:
            self.shared.trace.warn("the pipeline was given another scheduler, which steps for itself: Solver is off")
            self.detach()

    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One step of the scheduler, taken by the solver."""
        solver, warn = self.shared.solver, self.shared.trace.warn
        if solver is None:
            return inner(*args, **kwargs)
        call = dict(inspect.signature(inner).bind(*args, **kwargs).arguments)
        own: Any = solver.own
        if call.get("per_token_timesteps") is not None:
            warn("every token has a timestep of its own, which the solvers do not know: the scheduler steps itself")
            return inner(*args, **kwargs)
        if call.get("eta"):
            warn("the solver adds no noise, so eta has no effect")
        begins = own.timesteps is not self._timesteps
        counts = hasattr(own, "_step_index")
        if counts and own._step_index is None:
            begins = True
        elif not counts and not begins:
            begins = solver.place >= len(self._times) or self._times[solver.place] != float(call["timestep"])
        if begins:
            self._timesteps, self._times = own.timesteps, [float(t) for t in own.timesteps]
            if counts and own._step_index is None:
                # Where two timesteps are rounded to one, a scheduler that looks for the first finds the second.
                begin = getattr(own, "_begin_index", None)
                own._step_index = begin if begin is not None else nearest(self._times, float(call["timestep"]))
            place: Any = own._step_index if counts else nearest(self._times, float(call["timestep"]))
            solver.begin(place)
            solver.follows = not any(after > before for before, after in pairwise(solver.sigmas[place:]))
        if not solver.follows:
            warn("the noise levels rise, which the solvers do not follow: the scheduler steps itself")
            return inner(*args, **kwargs)
        latents, clean = solver.step(**{k: v for k, v in call.items() if k != "return_dict"})
        if counts:
            own._step_index = solver.place
        return Stepped(latents, clean) if call.get("return_dict", True) else (latents, clean)

    def detach(self) -> None:
        if self._tap is not None:
            self._tap.remove()
        self._tap = self._target = self._timesteps = None
        self.shared.solver = None


def nearest(times: list[float], timestep: float) -> int:
    """Place of `timestep` among `times`."""
    return min(range(len(times)), key=lambda i: abs(times[i] - timestep))


def reason_against(own: Any) -> str | None:
    """Why no other solver can take the steps of `own`, or None."""
    name = type(own).__name__
    if Prediction.of(own) is None:
        return f"it is not known how {name} reads the denoiser's output"
    if getattr(own, "order", 1) > 1:
        return f"{name} is of order {own.order} already, with as many denoiser calls a step"
    if own.config.get("stochastic_sampling"):
        return f"{name} adds noise in its steps, as models distilled to few steps need it"
    return None
