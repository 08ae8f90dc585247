"""Solver and every preset on each accepted transformer, under each scheduler that its pipelines in diffusers name.

The pipelines themselves are in test_solver_pipelines.py as far as they can be built small; here every class is tried.
What is found is written down by `make solver-table`: docs/solver_table.md.
"""

from __future__ import annotations

import inspect
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, get_args

import diffusers
import pytest
import torch
from diffusers.schedulers import KarrasDiffusionSchedulers
from test_solver import own_sigmas
from tiny import TinyPipeline
from tiny_models import SPECIMENS

from outpace.accel import FAMILIES, PRESETS, Solver, accelerate
from outpace.errors import ConflictError

FLOW = diffusers.FlowMatchEulerDiscreteScheduler

ACCEPTED = sorted(SPECIMENS)
QUICK = ("DiTTransformer2DModel", "WanTransformer3DModel")
"""Tried in the default run too."""


LEFT_OUT = {
    "CogVideoXDPMScheduler": "its step takes the output of the step before",
    "DPMSolverSDEScheduler": "its noise comes from torchsde, which the tests do not need",
    "HeliosDMDScheduler": "its step takes the stage that the pipeline is in",
    "HeliosScheduler": "its timesteps are those of one stage of its pyramid",
    "PiflowScheduler": "its model puts out a policy, not a direction",
}
"""Schedulers that are not tried, most of them because they cannot be stepped without what only one pipeline gives."""


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
            if KarrasDiffusionSchedulers.__name__ in of:  # an enumeration that stands for its members
                of |= {member.name for member in KarrasDiffusionSchedulers}
            for cls in names_in(taken["transformer"].annotation):
                found.setdefault(cls, set()).update(
                    s for s in of if s.endswith("Scheduler") and hasattr(diffusers, s) and s not in LEFT_OUT
                )
    return {cls: tuple(sorted(names)) for cls, names in found.items()}


def made(name: str) -> Any:
    """A scheduler of that class with its own defaults."""
    return getattr(diffusers, name)()


def found_under(cls: str) -> dict[str, list[str]]:
    """For each scheduler: what becomes of both solvers and of every preset on a tiny transformer of the class."""
    found: dict[str, list[str]] = {}
    for name in schedulers().get(cls, ()) or (FLOW.__name__,):
        pipe = TinyPipeline(cls, made(name))
        torch.manual_seed(0)  # for those that draw noise
        plain = pipe(steps=6)
        words = [with_solver(pipe, solver) for solver in ("dpm++", "unipc")]
        for preset in PRESETS:
            with accelerate(pipe, preset=preset) as handle:
                assert torch.isfinite(pipe(steps=6)).all(), (name, preset)
            left = any("is left out here" in warning for warning in handle.trace.warnings)
            words.append("without the solver" if left else "runs")
        torch.manual_seed(0)
        assert torch.equal(pipe(steps=6), plain), (name, "restored")
        found[name] = words
    return found


def with_solver(pipe: TinyPipeline, solver: str) -> str:
    """What becomes of `Solver`, in a word; its levels are held to the scheduler's own."""
    try:
        handle = accelerate(pipe, Solver(solver=solver))
    except ConflictError as error:
        assert "keep the pipeline's own scheduler" in str(error)
        return f"refused: {error}"
    with handle:
        assert torch.isfinite(pipe(steps=6)).all()
        held = handle._conductor.shared.solver
        assert held is not None
        pairs = zip(held.sigmas, own_sigmas(pipe.scheduler), strict=True)
        assert max(abs(mine - own) for mine, own in pairs) <= 1e-6
    return "runs"


@pytest.fixture(scope="module")
def table(root: Path) -> Any:
    sys.path.insert(0, str(root / "docs"))
    try:
        import solver_table
    finally:
        sys.path.pop(0)
    return solver_table


@pytest.fixture(scope="module")
def record(table: Any) -> Any:
    return json.loads(table.RECORD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("cls", [pytest.param(cls, marks=[pytest.mark.slow] * (cls not in QUICK)) for cls in ACCEPTED])
def test_every_class_runs_or_is_refused_as_the_table_says(cls: str, record: Any) -> None:
    assert found_under(cls) == record["classes"][cls]["found"], "make solver-table"


def test_the_table_is_of_every_class_with_the_data_that_its_family_has_now(root: Path, table: Any, record: Any) -> None:
    sys.path.insert(0, str(root / "docs"))
    try:
        from support import stamp
    finally:
        sys.path.pop(0)
    now = {name: stamp(family) for _, family in FAMILIES.items() for name in family.transformers}
    assert {cls: one["data"] for cls, one in record["classes"].items()} == now, "make solver-table"
    assert table.PAGE.read_text(encoding="utf-8") == table.page(record), "make solver-table"


def test_pipelines_of_diffusers_name_their_schedulers() -> None:
    found = schedulers()
    assert len([cls for cls in ACCEPTED if found.get(cls)]) > 40
    assert "FlowMatchEulerDiscreteScheduler" in found["FluxTransformer2DModel"]
