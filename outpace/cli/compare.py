"""`outpace compare`: ours and its rivals on the same prompts and seeds, as a page, a table and data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outpace.cli.terminal import FiniteRange, show_traceback_option
from outpace.cli.workers_option import EPILOG as WORKERS_EPILOG
from outpace.cli.workers_option import workers_option

if TYPE_CHECKING:
    from outpace.cli.answering import Bench
    from outpace.cli.matrix import Plan
    from outpace.evaluation import Request, Study
    from outpace.evaluation.samples import BatchMaker
    from outpace.pipelines.load import Loaded

EPILOG = (
    """\b
Examples:
  outpace compare dit --prompts 8 --out out/dit
  outpace compare flux --methods all --prompts 32 --steps 28 --timing-prompts 5 --out out/flux28
  outpace compare wan --methods gated,fewer-steps,taylorseer-lite --out out/wan
  outpace compare wan-long --method adaspa:recall=0.9 --method "threshold=0.1 + adaspa:recall=0.95" --prompts 2
  outpace compare wan --matrix --prompts 16 --out out/matrix
  outpace compare flux --also out/flux-distilled --out out/moe
  outpace compare owner/model --prompts prompts.txt --device cuda --batch 4 --out out/mine

\b
METHODS: "main", "all", or a comma list of
  gated gated-budget gated-paper      our gate: planned, measured at every skip, as published
  gated+solver gated+solver-short     our gate on top of a second-order solver
  interval interval-order2            the last block forecast at fixed intervals
  fewer-steps dpm++ unipc             fewer steps of the same solver, of second-order ones
  first-block-cache taylorseer taylorseer-lite magcache pab fastercache seacache      what diffusers holds
  cache-dit cache-dit-taylor          with: pip install "outpace[peers]"
or of single contenders, such as gated-0.15 or steps-25. For long attention, only where named:
  adaspa adaspa-sparsity adaspa-paper    sparse attention: by recall, by the paper's rule, as published
  bricks bricks-uniform bricks-random    groups of blocks left out: as calibrated, evenly, at random
  gated+adaspa fewer-steps-slightly      with our gate; 1.15 to 1.55 times fewer steps

\b
--method NAME:KEY=VALUE,... takes part as one contender, several joined by "+" as one together ('outpace methods' lists
them). It is always timed and shown, beside fewer steps unless --methods says otherwise ("none": nothing else).

\b
--also FOLDER takes part beside PIPELINE, alone and under our gate: one that 'outpace convert' or 'outpace distill' made
from it. Its blocks count for less by the FLOPs that they save; the report shows what its experts were chosen for.

\b
--matrix runs every combination of parts: a forecast cache, sparse attention, a solver, a converted pipeline (--also),
each off or in one of several ways. All are timed; the report tells what each part has in the error and in the gain of
every combination, and names the best one for PSNR 30, 35, 40, 45 and 50. --axis takes only some: --axis forecast
--axis attention=recall-0.9; the axis "bricks", whose schedules are calibrated first, has to be named.

\b
Results are kept as they come: the same command in the same folder continues where it stopped.
'outpace report DIR' draws the page again without running anything.
"""
    + WORKERS_EPILOG
)


@click.command(epilog=EPILOG, short_help="Measure speed against fidelity, beside every rival.")
@click.argument("pipeline")
@click.option("--methods", metavar="METHODS", help="Who takes part, see below [default: main, or fewer steps].")
@click.option("--method", "asked", multiple=True, metavar="METHOD[+METHOD]", help="One more contender (repeatable).")
@click.option("--also", multiple=True, metavar="FOLDER", help="A converted pipeline takes part too (repeatable).")
@click.option("--matrix", "with_matrix", is_flag=True, help="Every combination of parts takes part, see below.")
@click.option(
    "--axis", "axes", multiple=True, metavar="NAME[=CHOICE,...]", help="Of the matrix only this (repeatable)."
)
@click.option(
    "--prompts", default="8", show_default=True, metavar="N|FILE", help="How many of the pocket's, or a file."
)
@click.option("--steps", type=click.IntRange(min=2), metavar="N", help="Denoising steps [default: the pipeline's].")
@click.option("--out", default="out/compare", show_default=True, metavar="DIR", help="Where results are kept.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the first prompt.")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="Prompts a call.")
@click.option(
    "--timing-prompts", type=click.IntRange(min=0), default=2, show_default=True, metavar="N", help="Timed at batch 1."
)
@click.option("--timing-rounds", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Repeats.")
@click.option(
    "--time-every", is_flag=True, help="Time every contender, not only those of each curve near the compared speed-ups."
)
@click.option(
    "--converged-steps", type=click.IntRange(min=0), default=200, show_default=True, metavar="N", help="0: without it."
)
@click.option("--guidance", type=FiniteRange(min=0), metavar="SCALE", help="Classifier-free guidance scale.")
@click.option("--height", type=click.IntRange(min=1), metavar="PIXELS", help="[default: the pipeline's]")
@click.option("--width", type=click.IntRange(min=1), metavar="PIXELS", help="[default: the pipeline's]")
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Frames of a clip [default: the pipeline's].")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: as the device likes]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps ...")
@workers_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def compare(
    pipeline: str,
    methods: str | None,
    asked: tuple[str, ...],
    also: tuple[str, ...],
    with_matrix: bool,
    axes: tuple[str, ...],
    prompts: str,
    out: str,
    seed: int,
    batch: int,
    timing_prompts: int,
    timing_rounds: int,
    time_every: bool,
    converged_steps: int,
    dtype: str | None,
    device: str,
    workers: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Run PIPELINE plainly, under our methods and under their rivals, on the same prompts and seeds.

    Every contender is compared with the plain pipeline at the same steps and with the converged solution; speed is
    counted in computed blocks, less what sparse attention leaves out of them, and timed in turns with the plain
    pipeline. Writes report.html, report.md and results.json to DIR.
    """
    from outpace.cli.workers_option import check_workers, crew_of
    from outpace.pipelines.load import find_pipeline
    from outpace.pipelines.media import check_writable

    if axes and not with_matrix:
        raise click.UsageError("--axis belongs to --matrix; give both, or neither")
    find_pipeline(pipeline)  # a slip in the name is answered before torch is imported
    check_workers(workers, prompts)
    wanted = read_count_or_file(prompts)
    home = Path(out).expanduser()
    check_writable(home / "results.json")

    from outpace.cli.matrix import read_axes
    from outpace.cli.method_option import parse_combination
    from outpace.evaluation import build_results, run_study
    from outpace.evaluation.atomic import write_json
    from outpace.evaluation.environment import environment
    from outpace.evaluation.matrix import build_matrix
    from outpace.evaluation.report import render
    from outpace.evaluation.samples import BatchMaker

    for text in asked:
        parse_combination(text)
    for folder in also:
        find_pipeline(folder)
    read_axes(axes)
    if methods is None:
        methods = "fewer-steps,fewer-steps-slightly" if asked else "fewer-steps" if with_matrix or also else "main"
    told: dict[str, Any] = dict(
        pipeline=pipeline,
        methods=methods,
        asked=asked,
        also=also,
        with_matrix=with_matrix,
        axes=axes,
        wanted=wanted,
        home=home,
        seed=seed,
        batch=batch,
        timing_prompts=timing_prompts,
        timing_rounds=timing_rounds,
        time_every=time_every,
        converged_steps=converged_steps,
        dtype=dtype,
        device=device,
        settings=settings,
    )
    study, bench, plan = build_study(**told)
    crew = crew_of(BatchMaker(study), partial(batch_maker, **told), workers, study.device)
    rows = run_study(study, crew=crew, progress=not as_json)
    if not crew.leads:
        return
    results = build_results(
        study,
        rows,
        pipeline=describe(bench),
        command=command_line(),
        environment=environment(study.device),
    )
    if plan:
        results["matrix"] = build_matrix(plan.axes, plan.combinations, results)
    write_json(home / "results.json", results)
    page = render(results, home)
    show(results, home, page, as_json)


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
    timing_rounds: int,
    time_every: bool,
    converged_steps: int,
    dtype: str | None,
    device: str,
    settings: dict[str, Any],
) -> tuple[Study, Bench, Plan | None]:
    """The study that a command line asks for, with its pipeline loaded; every argument is plain data."""
    import torch

    from outpace.cli.answering import Bench
    from outpace.cli.brick_contenders import SPEEDUPS as BRICK_SPEEDUPS
    from outpace.cli.contenders import build_contenders
    from outpace.cli.converted_contenders import load_converted
    from outpace.cli.matrix import plan_matrix
    from outpace.cli.sparse_contenders import SPEEDUPS as SPARSE_SPEEDUPS
    from outpace.cli.workers_option import device_of_process
    from outpace.evaluation import Study
    from outpace.evaluation.cells import SPEEDUPS
    from outpace.pipelines.load import call_arguments, load_pipeline

    place = device_of_process(device)
    loaded = load_pipeline(pipeline, dtype=getattr(torch, dtype) if dtype else None, device=place)
    loaded.pipe.set_progress_bar_config(disable=True)
    requests = requests_for(loaded, wanted, seed)
    bench = Bench(loaded=loaded, arguments=call_arguments(loaded, **settings), yardstick=requests[0])
    bench.converted = load_converted(bench, also)
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
        timing_rounds=timing_rounds,
        timed="every" if time_every or plan else "shown",
        target=1.5 if sparse or bricks else 2.5,
        speedups=SPARSE_SPEEDUPS if sparse else BRICK_SPEEDUPS if bricks else SPEEDUPS,
        converged="converged" if converged_steps else None,
        device=loaded.pipe.device.type,
        identity=identity(bench),
    )
    return study, bench, plan


def batch_maker(**told: Any) -> BatchMaker:
    """What makes the batches of `build_study` in a process of its own."""
    from outpace.evaluation.samples import BatchMaker

    return BatchMaker(build_study(**told)[0])


def read_count_or_file(prompts: str) -> int | list[str]:
    """A number of prompts, or the lines of a file.

    Raises: InputError for 0, or a file that cannot be read or is empty.
    """
    from outpace.cli.prompt_option import read_texts
    from outpace.errors import InputError

    if prompts.lstrip("-").isdecimal():
        if int(prompts) < 1:
            raise InputError(f"--prompts {prompts}: at least one prompt is needed")
        return int(prompts)
    return read_texts((), prompts)


def requests_for(loaded: Loaded, wanted: int | list[str], seed: int) -> list[Request]:
    """One request a prompt, seeds counted upward from `seed`; a pocket's own prompts are ones it never saw in training.

    Raises: InputError where prompts are counted but the pipeline brings none.
    """
    from outpace.errors import InputError
    from outpace.evaluation import Request
    from outpace.pipelines.load import read_prompts

    if isinstance(wanted, int) and loaded.pocket is None:
        raise InputError(
            f"'{loaded.source.name}' brings no prompts of its own; name a file with one a line: --prompts FILE"
        )
    texts = loaded.pocket.prompts(wanted, "held_out") if isinstance(wanted, int) else read_prompts(loaded, wanted)
    return [Request(index=i, prompt=text, seed=seed + i) for i, text in enumerate(texts)]


def identity(bench: Any) -> dict[str, Any]:
    """What kept results depend on besides the contender: weights, call, precision, device, versions."""
    from outpace.cli.answering import weights_digest
    from outpace.evaluation.environment import version_of

    pipe = bench.loaded.pipe
    return {
        "pipeline": bench.loaded.source.name,
        "class": type(pipe).__name__,
        "weights": weights_digest(pipe),
        "scheduler": [type(pipe.scheduler).__name__, dict(pipe.scheduler.config)],
        "arguments": bench.arguments,
        "dtype": str(pipe.transformer.dtype),
        "device": pipe.device.type,
        "versions": [version_of(p) for p in ("outpace", "torch", "diffusers")],
    }


def describe(bench: Any) -> dict[str, Any]:
    """The pipeline as the report names it."""
    from outpace.accel import find_family
    from outpace.pipelines.load import makes_clips

    pipe = bench.loaded.pipe
    call = {k: v for k, v in bench.arguments.items() if k != "num_inference_steps"}
    return {
        "name": bench.loaded.source.name,
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


def command_line() -> str:
    """The command under way, as it would be typed."""
    context = click.get_current_context()
    words = ["outpace", context.command.name or ""]
    for parameter in context.command.params:
        if parameter.name is None or parameter.name not in context.params:
            continue
        value = context.params[parameter.name]
        if isinstance(parameter, click.Argument):
            words.insert(2, str(value))
        elif context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE:
            several = value if isinstance(value, tuple) else (value,)
            words += [w for v in several for w in ([parameter.opts[0]] if v is True else [parameter.opts[0], str(v)])]
    return shlex.join(words)


def show(results: dict[str, Any], home: Path, page: Path, as_json: bool) -> None:
    """The verdict and where the files are."""
    from outpace.evaluation.report.verdict import verdict

    said = verdict(results)
    files = {"report": str(page), "table": str(home / "report.md"), "results": str(home / "results.json")}
    if as_json:
        keys = ("name", "label", "kind", "steps", "error", "blocks", "work", "speedup", "time", "metrics", "checks")
        brief = [{k: c.get(k) for k in (*keys, "attention")} for c in results["contenders"]]
        click.echo(
            json.dumps({"verdict": said, "contenders": brief, "cells": results["cells"], "files": files}, indent=2)
        )
        return
    for sentence in said["sentences"]:
        click.echo(sentence)
    for title, lines in (("Attention:", said["attention"]), ("Lost:", said["losses"]), ("Missing:", said["gaps"])):
        if lines:
            click.echo(title)
            for line in lines:
                click.echo(f"  {line}")
    click.echo(f"Report: {page}  (table: {files['table']}, data: {files['results']})")
