"""The curves of fewer steps: of the pipeline's own solver, and of second-order ones."""

from __future__ import annotations

from outpace.accel import Solver
from outpace.cli.contenders.bench import Bench
from outpace.cli.contenders.curve import curve, fewer, ours, with_steps
from outpace.evaluation import Contender


@curve("fewer-steps")
def fewer_steps(bench: Bench) -> list[Contender]:
    """The pipeline's own solver with fewer steps: the rival that costs no code."""
    return [with_steps(bench, n) for n in fewer(bench.steps)]


@curve("dpm++")
def dpm(bench: Bench) -> list[Contender]:
    """DPM-Solver++ (2M) with fewer steps."""
    return [
        ours(bench, f"dpm-{n}", f"DPM++, {n} steps", "solver", "DPM++, fewer steps", n, Solver(solver="dpm++"))
        for n in fewer(bench.steps)
    ]


@curve("unipc")
def unipc(bench: Bench) -> list[Contender]:
    """UniPC of second order with fewer steps."""
    return [
        ours(bench, f"unipc-{n}", f"UniPC, {n} steps", "solver", "UniPC, fewer steps", n, Solver(solver="unipc"))
        for n in fewer(bench.steps)
    ]
