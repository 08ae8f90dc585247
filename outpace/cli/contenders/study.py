"""The study of a comparison: a loaded pipeline, who takes part on which requests, and what results depend on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from outpace.accel import find_family
from outpace.cli.contenders.also import load_also
from outpace.cli.contenders.bench import Bench, weights_digest
from outpace.cli.contenders.bricks import SPEEDUPS as BRICK_SPEEDUPS
from outpace.cli.contenders.choose import build_contenders
from outpace.cli.contenders.matrix import Plan, plan_matrix
from outpace.cli.contenders.sparse import SPEEDUPS as SPARSE_SPEEDUPS
from outpace.cli.options.pipeline import inputs_of, setup_of
from outpace.cli.options.prompt import requests_for
from outpace.cli.options.workers import device_of_process
from outpace.cli.terminal import watched
from outpace.evaluation import Study
from outpace.evaluation.cells import SPEEDUPS
from outpace.evaluation.environment import version_of
from outpace.evaluation.samples import BatchMaker
from outpace.pipelines.inputs import suited
from outpace.pipelines.load import call_arguments, load_pipeline, makes_clips


def build_study(
    *,
    pipeline: str,
    methods: str,
    asked: Sequence[str],
    also: Sequence[str],
    with_matrix: bool,
    axes: Sequence[str],
    wanted: int | list[str],
    home: Path,
    seed: int,
    batch: int,
    timing_prompts: int,
    timing_batch: int,
    timing_rounds: int,
    time_every: bool,
    converged_steps: int,
    dtype: str | None,
    device: str,
    settings: dict[str, Any],
    options: dict[str, Any] | None = None,
) -> tuple[Study, Bench, Plan | None]:
    """The study that a command line asks for, with its pipeline loaded; every argument is plain data."""
    place = device_of_process(device)
    given = options or {}
    inputs, setup = inputs_of(given), setup_of(given)
    loaded = load_pipeline(
        pipeline,
        dtype=getattr(torch, dtype) if dtype else None,
        device=place,
        progress=watched(),
        variant=given.get("variant"),
        setup=setup,
    )
    loaded = suited(loaded, inputs)
    loaded.pipe.set_progress_bar_config(disable=True)
    requests = requests_for(loaded, wanted, seed)
    bench = Bench(
        loaded=loaded,
        arguments=inputs.arguments(loaded, call_arguments(loaded, **settings)),
        yardstick=requests[0],
    )
    load_also(bench, also, pipeline)
    contenders = build_contenders(bench, methods, asked, converged_steps)
    plan = plan_matrix(bench, requests[0], axes) if with_matrix else None
    contenders += plan.contenders if plan else []
    sparse = any("sparse" in c.kind for c in contenders)
    bricks = any("bricks" in c.kind for c in contenders)
    study = Study(
        contenders=contenders,
        requests=requests,
        folder=home,
        check=loaded.pocket.check if loaded.pocket else None,
        features=loaded.pocket.features if loaded.pocket else None,
        batch=batch,
        timing_requests=timing_prompts,
        timing_batch=timing_batch,
        timing_rounds=timing_rounds,
        timed="every" if time_every or plan else "shown",
        target=1.5 if sparse or bricks else 2.5,
        speedups=SPARSE_SPEEDUPS if sparse else BRICK_SPEEDUPS if bricks else SPEEDUPS,
        converged="converged" if converged_steps else None,
        device=loaded.pipe.device.type,
        parts=parts_of(loaded.pipe),
        identity=identity(bench) | ({"options": given, "inputs": inputs.digests()} if given else {}),
    )
    return study, bench, plan


def parts_of(pipe: Any) -> dict[str, tuple[Any, str]]:
    """What is timed apart from denoising: the encoding of prompts and the decoder, where the pipeline has them."""
    found = {"text": (pipe, "encode_prompt"), "decoding": (getattr(pipe, "vae", None), "decode")}
    return {name: (owner, method) for name, (owner, method) in found.items() if hasattr(owner, method)}


def batch_maker(**told: Any) -> BatchMaker:
    """What makes the batches of `build_study` in a process of its own."""
    return BatchMaker(build_study(**told)[0])


def identity(bench: Bench) -> dict[str, Any]:
    """What kept results depend on besides the contender: weights, call, precision, device, versions."""
    pipe = bench.loaded.pipe
    return {
        "pipeline": bench.loaded.source.name,
        "class": type(pipe).__name__,
        "weights": weights_digest(pipe),
        "scheduler": [type(pipe.scheduler).__name__, dict(pipe.scheduler.config)],
        "arguments": {k: v for k, v in bench.arguments.items() if isinstance(v, int | float | str | None)},
        "dtype": str(pipe.transformer.dtype),
        "device": pipe.device.type,
        "versions": [version_of(p) for p in ("outpace", "torch", "diffusers")],
    }


def describe(bench: Bench) -> dict[str, Any]:
    """The pipeline as the report names it."""
    from outpace.pipelines.pocket.sisters import is_sister

    pipe, pocket = bench.loaded.pipe, bench.loaded.pocket
    call = {
        k: v if isinstance(v, int | float | str) else "given"
        for k, v in bench.arguments.items()
        if k != "num_inference_steps"
    }
    return {
        "name": pocket.name if pocket is not None and is_sister(pocket.name) else bench.loaded.source.name,
        "weights": weights_digest(pipe),
        "class": type(pipe).__name__,
        "kind": "video" if makes_clips(bench.loaded) else "image",
        "scheduler": type(pipe.scheduler).__name__,
        "steps": bench.steps,
        "family": find_family(pipe.transformer).name,
        "transformer blocks": bench.blocks,
        "parameters": f"{sum(p.numel() for p in pipe.transformer.parameters()) / 1e6:.2f} million in the denoiser",
        "precision": str(pipe.transformer.dtype).removeprefix("torch."),
        "call": ", ".join(f"{k} {v}" for k, v in call.items()) or None,
    }
