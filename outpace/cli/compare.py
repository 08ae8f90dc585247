"""`outpace compare`: ours and its rivals on the same prompts and seeds, as a page, a table and data."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outpace.cli.options.numbers import COUNT, MOST_STEPS, NUMBER, SEED, FiniteRange, WholeRange, size_options
from outpace.cli.options.output import PLACE
from outpace.cli.options.pipeline import inputs_of, pipeline_options, setup_of, take_options
from outpace.cli.options.workers import EPILOG as WORKERS_EPILOG
from outpace.cli.options.workers import workers_option
from outpace.cli.terminal import command_line, show_traceback_option, tell_if_stopped, watched

if TYPE_CHECKING:
    from outpace.evaluation.acceptance import Accepted

EPILOG = (
    """\b
Examples:
  outpace compare dit --prompts 8 --out out/dit
  outpace compare flux --methods all --prompts 32 --steps 28 --timing-prompts 5 --out out/flux28
  outpace compare wan --methods gated,fewer-steps,taylorseer-lite --out out/wan
  outpace compare wan-long --method adaspa:recall=0.9 --method "threshold=0.1 + adaspa:recall=0.95" --prompts 2
  outpace compare wan --matrix --prompts 16 --out out/matrix
  outpace compare flux --also out/flux-distilled --out out/moe
  outpace compare owner/model --also owner/model-turbo:steps=4,guidance=1 --prompts prompts.txt --out out/turbo
  outpace compare owner/model --prompts prompts.txt --device cuda --batch 4 --out out/mine
  outpace compare dit --method threshold=0.15 --accept bands.toml --out out/accepted

\b
METHODS: "main", "all", or a comma list of
  gated gated-budget gated-paper      our gate: planned, measured at every skip, as published
  gated+solver gated+solver-short     our gate on top of a second-order solver
  interval interval-order2            the last block forecast at fixed intervals
  fewer-steps dpm++ unipc             fewer steps of the same solver, of second-order ones
  first-block-cache taylorseer taylorseer-lite magcache pab fastercache seacache      what diffusers holds
  spectrum spectrum-mixed easycache teacache meancache    from their papers
  cache-dit cache-dit-taylor          with: pip install "outpace[peers]"
or of single contenders, such as gated-0.15 or steps-25. For long attention, only where named:
  adaspa adaspa-sparsity adaspa-paper    sparse attention: by recall, by the paper's rule, as published
  adaspa-calibrated sliding-tile radial spatial-temporal    densities calibrated by layer and head; static patterns
  bricks bricks-uniform bricks-random    groups of blocks left out: as calibrated, evenly, at random
  gated+adaspa scheduled+adaspa-calibrated fewer-steps-slightly    under a forecast; 1.15 to 1.55 times fewer steps

\b
--method NAME:KEY=VALUE,... takes part as one contender, several joined by "+" as one together ('outpace methods' lists
them). It is always timed and shown, beside fewer steps unless --methods says otherwise ("none": nothing else).

\b
--also FOLDER takes part beside PIPELINE, alone and under our gate: one that 'outpace convert' or 'outpace distill' made
from it. Its blocks count for less by the FLOPs that they save; the report shows what its experts were chosen for.
--also PLACE:steps=4,guidance=1 is another checkpoint with its own steps, a distilled one say, or the .safetensors of
a LoRA, put on PIPELINE. Its pictures are its own: prompts, sets and time judge it, not the plain pipeline's picture.

\b
--matrix runs every combination of parts: a forecast cache, sparse attention, a solver, a converted pipeline (--also),
each off or in one of several ways. All are timed; the report tells what each part has in the error and in the gain of
every combination, and names the best one for PSNR 30, 35, 40, 45 and 50. --axis takes only some: --axis forecast
--axis attention=recall-0.9; the axis "bricks", whose schedules are calibrated first, has to be named.

\b
--accept FILE holds the results to bands, and exits 1 where they are not kept: [worst] psnr = 30, [mean] lpips = 0.1,
[adherence] loss = 0.02, [speed] blocks = 2.0, each in its own lines; contenders = ["gated-0.15"] above them names who
must keep them, one of ours otherwise.

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
@click.option(
    "--also",
    multiple=True,
    metavar="PLACE[:...]",
    help="Another pipeline or LoRA takes part too, see below (repeatable).",
)
@click.option("--matrix", "with_matrix", is_flag=True, help="Every combination of parts takes part, see below.")
@click.option(
    "--axis", "axes", multiple=True, metavar="NAME[=CHOICE,...]", help="Of the matrix only this (repeatable)."
)
@click.option(
    "--prompts", default="8", show_default=True, metavar="N|FILE", help="How many of the pocket's, or a file."
)
@click.option("--steps", type=WholeRange(2, MOST_STEPS), metavar="N", help="Denoising steps [default: the pipeline's].")
@click.option(
    "--out", type=PLACE, default="out/compare", show_default=True, metavar="DIR", help="Where results are kept."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the first prompt.")
@click.option("--batch", type=COUNT, default=8, show_default=True, metavar="N", help="Prompts a call.")
@click.option(
    "--timing-prompts",
    type=NUMBER,
    default=2,
    show_default=True,
    metavar="N",
    help="How many are timed.",
)
@click.option("--timing-batch", type=COUNT, default=1, show_default=True, metavar="N", help="Prompts a timed call.")
@click.option("--timing-rounds", type=COUNT, default=1, show_default=True, metavar="N", help="Repeats.")
@click.option(
    "--time-every", is_flag=True, help="Time every contender, not only those of each curve near the compared speed-ups."
)
@click.option(
    "--converged-steps",
    type=WholeRange(0, MOST_STEPS),
    default=200,
    show_default=True,
    metavar="N",
    help="0: without it.",
)
@click.option("--guidance", type=FiniteRange(0, 1000), metavar="SCALE", help="Classifier-free guidance scale.")
@size_options
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: as the device likes]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps ...")
@pipeline_options
@workers_option
@click.option("--accept", "bands_file", metavar="FILE", help="Exit 1 unless its bands are kept, see below.")
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
    timing_batch: int,
    timing_rounds: int,
    time_every: bool,
    converged_steps: int,
    dtype: str | None,
    device: str,
    workers: int | None,
    bands_file: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Run PIPELINE plainly, under our methods and under their rivals, on the same prompts and seeds.

    Every contender is compared with the plain pipeline at the same steps and with the converged solution; speed is
    counted in computed blocks, less what sparse attention leaves out of them, and timed in turns with the plain
    pipeline. Writes report.html, report.md and results.json to DIR.
    """
    from outpace.cli.options.bands import read_bands_file
    from outpace.cli.options.prompt import read_count_or_file
    from outpace.cli.options.workers import check_workers, crew_of
    from outpace.files import check_writable
    from outpace.pipelines.load import find_pipeline

    if axes and not with_matrix:
        raise click.UsageError("--axis belongs to --matrix; give both, or neither")
    options = take_options(settings)
    inputs_of(options), setup_of(options)
    find_pipeline(pipeline)  # a slip in the name is answered before torch is imported
    check_workers(workers, prompts)
    wanted = read_count_or_file(prompts)
    bands = read_bands_file(bands_file) if bands_file else None
    home = Path(out).expanduser()
    check_writable(home / "results.json", home / "report.html", home / "report.md")

    from outpace.cli.contenders.also import read_also
    from outpace.cli.contenders.choose import check_methods
    from outpace.cli.contenders.matrix import read_axes
    from outpace.cli.contenders.study import batch_maker, build_study, describe
    from outpace.cli.options.method import parse_combination
    from outpace.evaluation import build_results, run_study
    from outpace.evaluation.acceptance import accept
    from outpace.evaluation.atomic import write_json
    from outpace.evaluation.environment import environment
    from outpace.evaluation.matrix import build_matrix
    from outpace.evaluation.report import render
    from outpace.evaluation.samples import BatchMaker

    for text in asked:
        parse_combination(text)
    for one in map(read_also, also):
        if not one.adapter:
            find_pipeline(one.place)
    read_axes(axes)
    if methods is None:
        methods = "fewer-steps,fewer-steps-slightly" if asked else "fewer-steps" if with_matrix or also else "main"
    check_methods(methods, alone=not (asked or also or with_matrix))
    tell_if_stopped(f"What was made is kept in {home}; the same command goes on from there.")
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
        batch=1 if options.get("image") else batch,
        timing_prompts=timing_prompts,
        timing_batch=1 if options.get("image") else timing_batch,
        timing_rounds=timing_rounds,
        time_every=time_every,
        converged_steps=converged_steps,
        dtype=dtype,
        device=device,
        options=options,
        settings=settings,
    )
    study, bench, plan = build_study(**told)
    crew = crew_of(BatchMaker(study), partial(batch_maker, **told), workers, study.device)
    rows = run_study(study, crew=crew, progress=watched(as_json))
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
    accepted = accept(results, bands) if bands else None
    show(results, home, page, as_json, accepted)
    if accepted and not accepted.ok:
        raise SystemExit(1)


def show(results: dict[str, Any], home: Path, page: Path, as_json: bool, accepted: Accepted | None = None) -> None:
    """The verdict and where the files are."""
    from outpace.evaluation.report.verdict import verdict

    said = verdict(results)
    files = {"report": str(page), "table": str(home / "report.md"), "results": str(home / "results.json")}
    if (home / "contact.png").is_file():
        files["pictures"] = str(home / "contact.png")
    if as_json:
        keys = ("name", "label", "kind", "steps", "error", "blocks", "work", "speedup", "time", "metrics", "checks")
        brief = [{k: c.get(k) for k in (*keys, "attention")} for c in results["contenders"]]
        told = {"verdict": said, "contenders": brief, "cells": results["cells"], "files": files}
        click.echo(json.dumps(told | ({"acceptance": accepted.to_dict()} if accepted else {}), indent=2))
        return
    for sentence in said["sentences"]:
        click.echo(sentence)
    for title, lines in (("Attention:", said["attention"]), ("Lost:", said["losses"]), ("Missing:", said["gaps"])):
        if lines:
            click.echo(title)
            for line in lines:
                click.echo(f"  {line}")
    for line in accepted.lines() if accepted else ():
        click.echo(line)
    sheet = f", pictures: {files['pictures']}" if "pictures" in files else ""
    click.echo(f"Report: {page}  (table: {files['table']}, data: {files['results']}{sheet})")
