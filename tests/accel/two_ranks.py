"""One of two processes that share a tiny transformer: forked by test_ranks.py, which reads what is printed."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import tiny
import torch
import torch.distributed as dist
from tiny import TinyPipeline

from outpace.accel import GatedTaylor, IntervalTaylor, Method, ScheduledTaylor, accelerate

SECONDS = 20
"""An exchange that waits longer is lost: the other process never came."""

STEPS = 14

EVEN = 4
"""Tokens of text: diffusers shares out only what divides evenly."""


def paper(threshold: float) -> GatedTaylor:
    return GatedTaylor(threshold=threshold, gate="paper", order=1, correct=False)


def methods(between: float) -> dict[str, Method]:
    """What is tried; `between` is a threshold for the gate that lies between the processes' own errors."""
    return {
        "between": paper(between),
        **{f"paper {t}": paper(t) for t in (0.005, 0.02, 0.08)},
        **{f"plan {t}": GatedTaylor(threshold=t) for t in (0.02, 0.05, 0.1, 0.2)},
        "budget": GatedTaylor(threshold=0.05, gate="budget"),
        "interval": IntervalTaylor(interval=3),
        "scheduled": ScheduledTaylor(speedup=2),
    }


def decided(pipe: TinyPipeline, method: Method, seeds: list[int], together: bool = True) -> dict[str, Any]:
    """What a run computed and why, its errors, and what came out.

    Args:
        together: False leaves every process to itself, as if it had the transformer alone.
    """
    with accelerate(pipe, method) as run:
        if not together:
            for denoiser in run._denoisers:
                denoiser.ranks = None
        tokens, tiny.TEXT_TOKENS = tiny.TEXT_TOKENS, EVEN
        try:
            out = pipe(seeds, steps=STEPS)
        finally:
            tiny.TEXT_TOKENS = tokens
    calls = run.trace.calls
    return {
        "computed": [c.computed for c in calls],
        "reasons": [c.reason for c in calls],
        "errors": [c.error for c in calls],
        "out": out.flatten().tolist(),
    }


class Branches:
    """A pipeline of which each process computes one branch of the guidance."""

    def __init__(self, cls: str, rank: int) -> None:
        self.pipe, self.rank = TinyPipeline(cls), rank
        self.transformer = self.pipe.transformer
        self.scheduler: Any = self.pipe.scheduler

    def __call__(self, seeds: list[int], steps: int) -> torch.Tensor:
        model, latents = self.pipe.model, tiny.noise(self.pipe.model, seeds)
        text = tiny.texts([seeds, [-1] * len(seeds)][self.rank])
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            mine = model.call(self.transformer, latents, t.expand(len(latents)).float(), text).contiguous()
            branches = [torch.empty_like(mine), torch.empty_like(mine)]
            dist.all_gather(branches, mine)
            cond, uncond = branches
            latents = self.scheduler.step(uncond + 2.0 * (cond - uncond), t, latents, return_dict=False)[0]
        return latents


def branches(cls: str, rank: int) -> dict[str, Any]:
    """What each process decides about its branch, left to itself and together."""
    pipe = Branches(cls, rank)
    every: list[Any] = [None, None]
    with accelerate(pipe, paper(1e6)) as run:
        pipe([0], STEPS)
    dist.all_gather_object(every, [call.error[0] for call in run.trace.calls])
    # Where the errors of both differ most, a threshold between them.
    both = [(one, two) for one, two in zip(*every, strict=True) if one is not None and two is not None]
    one, two = max(both, key=lambda pair: abs(pair[0] - pair[1]))
    found: dict[str, Any] = {}
    for name in ("apart", "together"):
        with accelerate(pipe, paper((one * two) ** 0.5)) as run:
            if name == "together":
                run.together()
            out = pipe([0], STEPS)
        found[name] = {
            "computed": [call.computed[0] for call in run.trace.calls],
            "reasons": [call.reason[0] for call in run.trace.calls],
            "out": out.flatten().tolist(),
        }
    return {"between": (one * two) ** 0.5, "found": found}


def ring(cls: str) -> dict[str, Any]:
    """What diffusers' ring says on this device, by itself and accelerated."""
    from diffusers import ContextParallelConfig

    torch.accelerator.device_count = lambda: 1
    pipe = TinyPipeline(cls)
    pipe.transformer.enable_parallelism(config=ContextParallelConfig(ring_degree=2))
    said = []
    tiny.TEXT_TOKENS = EVEN
    for methods in ([], [IntervalTaylor(interval=3)]):
        try:
            with accelerate(pipe, *methods) if methods else nullcontext():
                pipe([0], steps=STEPS)
            said.append("runs")
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return {"said": said}


def spread(pipe: TinyPipeline, job: str) -> None:
    """Spread the transformer over both processes."""
    if job == "sharded":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for block in pipe.transformer.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(pipe.transformer, mesh=mesh)
    elif job == "ulysses":
        from diffusers import ContextParallelConfig

        torch.accelerator.device_count = lambda: 1  # diffusers counts devices without asking whether there are any
        pipe.transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))


def first_errors(pipe: TinyPipeline, seeds: list[int]) -> list[float]:
    """This process's own errors at the steps that both are asked about, with everything forecast that can be."""
    run = decided(pipe, paper(1e6), seeds, together=False)
    return [errors[0] for errors in run["errors"] if errors[0] is not None]


def main(job: str, cls: str, rank: int, file: str) -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    dist.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=SECONDS)
    )
    # Tokens are shared out over both; sharded weights and whole copies serve prompts of their own.
    if job in ("branches", "ring"):
        print("RESULT" + json.dumps(branches(cls, rank) if job == "branches" else ring(cls)))
        dist.destroy_process_group()
        return
    seeds = [0] if job == "ulysses" else [rank + 1]
    pipe = TinyPipeline(cls)
    spread(pipe, job)
    every: list[Any] = [None, None]
    dist.all_gather_object(every, first_errors(pipe, seeds))
    between = (every[0][0] * every[1][0]) ** 0.5
    found = {name: decided(pipe, method, seeds) for name, method in methods(between).items()}
    print("RESULT" + json.dumps({"errors": every, "between": between, "found": found}))
    dist.destroy_process_group()
