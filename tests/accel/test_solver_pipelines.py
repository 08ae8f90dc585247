"""Solver and every preset on pipelines of diffusers itself: they run, or are refused before anything is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from real_pipelines import PIPELINES, build, run
from test_solver import own_sigmas

from outpace.accel import PRESETS, Solver, accelerate
from outpace.errors import ConflictError

RECORD = Path(__file__).resolve().parent.parent.parent / "docs" / "solver_table.json"
PLAIN, REFUSED = "steps for itself", "refused: "


def with_solver(name: str, solver: str) -> str:
    """What becomes of `Solver` on a pipeline, in a word; its levels are held to the scheduler's own."""
    pipe = build(name)
    try:
        handle = accelerate(pipe, Solver(solver=solver))
    except ConflictError as error:
        run(name, pipe)
        return REFUSED + str(error)
    with handle:
        out = run(name, pipe)
        assert torch.isfinite(out).all(), name
        held = handle._conductor.shared.solver
        assert held is not None
        if any("timestep of its own" in warning for warning in handle.trace.warnings):
            return PLAIN
        assert held.place == len(pipe.scheduler.timesteps), "every step was the solver's"
        pairs = zip(held.sigmas, own_sigmas(pipe.scheduler), strict=True)
        assert max(abs(mine - own) for mine, own in pairs) <= 1e-6, name
    assert "step" not in pipe.scheduler.__dict__
    return "runs"


def with_preset(name: str, preset: str) -> str:
    """What becomes of a preset on a pipeline, in a word."""
    pipe = build(name)
    with accelerate(pipe, preset=preset) as handle:
        assert torch.isfinite(run(name, pipe)).all(), name
        left = [warning for warning in handle.trace.warnings if "is left out here" in warning]
    return "without the solver" if left else "runs"


def found_on(name: str) -> list[str]:
    """What becomes of both solvers and every preset on a pipeline: a line of the table."""
    words = [with_solver(name, solver) for solver in ("dpm++", "unipc")]
    return words + [with_preset(name, preset) for preset in PRESETS]


def scheduler_of(name: str) -> str:
    """Class of a pipeline's own scheduler."""
    return type(PIPELINES[name].scheduler()).__name__


@pytest.mark.parametrize("name", list(PIPELINES))
def test_it_runs_or_is_refused_at_once_as_the_table_says(name: str) -> None:
    written = json.loads(RECORD.read_text(encoding="utf-8"))["pipelines"]
    assert written.get(name) == {"scheduler": scheduler_of(name), "found": found_on(name)}, "make solver-table"
