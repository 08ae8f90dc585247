"""Solver and every preset on each accepted transformer, under each scheduler that its pipelines in diffusers name.

The pipelines themselves are in test_solver_pipelines.py as far as they can be built small; here every class is tried.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, get_args

import diffusers
import pytest
import torch
from test_solver import own_sigmas
from tiny import TinyPipeline
from tiny_models import SPECIMENS

from outpace.accel import PRESETS, Solver, accelerate
from outpace.errors import ConflictError

FLOW = diffusers.FlowMatchEulerDiscreteScheduler

ACCEPTED = sorted(SPECIMENS)


ONLY_THEIR_PIPELINE = {
    "CogVideoXDPMScheduler": "its step takes the output of the step before",
    "HeliosDMDScheduler": "its step takes the stage that the pipeline is in",
    "HeliosScheduler": "its timesteps are those of one stage of its pyramid",
    "PiflowScheduler": "its model puts out a policy, not a direction",
}
"""Schedulers that cannot be stepped without what only one pipeline gives them, and what that is."""


def names_in(annotation: Any) -> set[str]:
    """Names of the classes that an annotation allows; some of diffusers' are only written as text."""
    if isinstance(annotation, str):
        return {word.split(".")[-1] for word in annotation.replace("|", " ").replace(",", " ").split()}
    return {name for part in get_args(annotation) for name in names_in(part)} or {
        getattr(annotation, "__name__", str(annotation))
    }


@cache
def schedulers() -> dict[str, tuple[str, ...]]:
    """For each class of transformer, the schedulers that pipelines of diffusers around it are made for."""
    found: dict[str, set[str]] = {}
    for name in dir(diffusers):
        if not name.endswith("Pipeline"):
            continue
        taken = inspect.signature(getattr(diffusers, name).__init__).parameters
        if "transformer" in taken and "scheduler" in taken:
            of = names_in(taken["scheduler"].annotation)
            for cls in names_in(taken["transformer"].annotation):
                found.setdefault(cls, set()).update(
                    s for s in of if s.endswith("Scheduler") and hasattr(diffusers, s) and s not in ONLY_THEIR_PIPELINE
                )
    return {cls: tuple(sorted(names)) for cls, names in found.items()}


def made(name: str) -> Any:
    """A scheduler of that class with its own defaults."""
    return getattr(diffusers, name)()


@pytest.mark.slow
@pytest.mark.parametrize("cls", ACCEPTED)
def test_every_class_under_its_schedulers(cls: str) -> None:
    for name in schedulers().get(cls, ()) or (FLOW.__name__,):
        pipe = TinyPipeline(cls, made(name))
        torch.manual_seed(0)  # for those that draw noise
        plain = pipe(steps=6)
        try:
            handle = accelerate(pipe, Solver())
        except ConflictError as error:
            assert "keep the pipeline's own scheduler" in str(error), name
        else:
            with handle:
                assert torch.isfinite(pipe(steps=6)).all(), name
                held = handle._conductor.shared.solver
                assert held is not None
                pairs = zip(held.sigmas, own_sigmas(pipe.scheduler), strict=True)
                assert max(abs(mine - own) for mine, own in pairs) <= 1e-6, name
        for preset in PRESETS:
            with accelerate(pipe, preset=preset):
                assert torch.isfinite(pipe(steps=6)).all(), (name, preset)
        torch.manual_seed(0)
        assert torch.equal(pipe(steps=6), plain), (name, "restored")


def test_pipelines_of_diffusers_name_their_schedulers() -> None:
    found = schedulers()
    assert len([cls for cls in ACCEPTED if found.get(cls)]) > 40
    assert "FlowMatchEulerDiscreteScheduler" in found["FluxTransformer2DModel"]
