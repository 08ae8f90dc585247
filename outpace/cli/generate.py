"""`outpace generate`: pictures or clips from a pipeline, faster, each with the recipe that makes it again."""

from __future__ import annotations

import json
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from outpace.cli.making.making import Making, summed
from outpace.cli.making.order import DEFAULT_PRESET, Order, choose
from outpace.cli.options.numbers import COUNT, STEPS, FiniteRange, WholeRange, size_options
from outpace.cli.options.output import PLACE
from outpace.cli.options.pipeline import inputs_of, pipeline_options, setup_of, take_options
from outpace.cli.options.workers import EPILOG as WORKERS_EPILOG
from outpace.cli.options.workers import check_workers, crew_of, workers_option
from outpace.cli.terminal import show_traceback_option, tell_if_stopped, watched

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = (
    """\b
Examples:
  outpace generate flux --prompt "a blue circle above a yellow circle on black" --out circle.png
  outpace generate dit --prompt 3 --seed 1-8 --batch 8 --preset fast
  outpace generate wan --prompt "a white square moves up slowly" --format gif --enlarge 8
  outpace generate flux --prompt "a red square on blue" --speedup 3 --out red.png
  outpace generate flux --prompts prompts.txt --method gated_taylor:threshold=0.05 --method solver:solver=unipc
  outpace generate flux --prompt "a red square on blue" --profile out/tune/profile.json
  outpace generate flux --prompt "a red square on blue" --image circle.png --strength 0.6 --out square.png
  outpace generate black-forest-labs/FLUX.1-dev --prompt "a fox in the snow" --device cuda --dtype bfloat16

PIPELINE is a pocket pipeline ('outpace pocket list'), a folder written by save_pretrained, or a hub id.

With --prompts FILE, files that are there already and carry the recipe that is asked for are left as they are, so the
same command continues where it stopped; a file with another recipe is an error before anything runs.
"""
    + WORKERS_EPILOG
)


@click.command(epilog=EPILOG, short_help="Make pictures or clips, faster.")
@click.argument("pipeline")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="What to make; may be repeated.")
@click.option("--prompts", "file", metavar="FILE", help="A file with one prompt a line; - reads standard input.")
@click.option(
    "--speedup",
    type=FiniteRange(1, 1000),
    metavar="X",
    help="So many times fewer transformer blocks: the steps that are computed are laid where they matter most.",
)
@click.option("--preset", metavar="NAME", help=f"A tuned choice of methods [default: {DEFAULT_PRESET}].")
@click.option("--method", "methods", multiple=True, metavar="NAME[:KEY=VALUE,...]", help="A method; may be repeated.")
@click.option("--profile", metavar="FILE", help="Settings that 'outpace tune' found, with their number of steps.")
@click.option("--plain", is_flag=True, help="No acceleration: the pipeline as it is.")
@click.option("--steps", type=STEPS, metavar="N", help="Denoising steps [default: the pipeline's].")
@click.option("--seed", default="0", show_default=True, metavar="INT[,INT-INT]", help="One, or one a prompt.")
@click.option("--batch", type=COUNT, metavar="N", default=1, show_default=True, help="Prompts a call.")
@click.option("--guidance", type=FiniteRange(0, 1000), metavar="SCALE", help="Classifier-free guidance scale.")
@size_options
@click.option(
    "--fps",
    type=FiniteRange(0.1, 1000),
    default=8.0,
    metavar="RATE",
    show_default=True,
    help="Frames a second.",
)
@click.option(
    "--out", type=PLACE, default="out", show_default=True, metavar="PATH", help="A file, or a folder for several."
)
@click.option("--overwrite", is_flag=True, help="With --prompts: also make what is there already.")
@click.option("--format", type=click.Choice(["png", "mp4", "gif"]), help="[default: png, or mp4 for clips]")
@click.option(
    "--enlarge", type=WholeRange(1, 64), default=1, metavar="N", help="Save each pixel as a square of this size."
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: as the device likes]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps ...")
@pipeline_options
@workers_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def generate(
    pipeline: str,
    prompts: tuple[str, ...],
    file: str | None,
    speedup: float | None,
    preset: str | None,
    methods: tuple[str, ...],
    profile: str | None,
    plain: bool,
    seed: str,
    batch: int,
    out: str,
    overwrite: bool,
    format: str | None,
    fps: float,
    enlarge: int,
    dtype: str | None,
    device: str,
    workers: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make a picture or a clip for every prompt with PIPELINE, accelerated."""
    from outpace.cli.options.output import check_out
    from outpace.cli.options.prompt import pair, read_seeds, read_texts

    if preset == "" or profile == "":
        raise click.UsageError("--preset and --profile name something, or are left out")
    if sum((speedup is not None, bool(preset), bool(methods), bool(profile), plain)) > 1:
        raise click.UsageError("--speedup, --preset, --method, --profile and --plain exclude each other; keep one")
    options = take_options(settings)
    if options.get("image") and batch > 1:
        raise click.UsageError("--image starts every prompt from the same picture, one at a time; leave --batch out")
    wanted = pair(read_texts(prompts, file), read_seeds(seed))
    from outpace.pipelines.load import find_pipeline

    find_pipeline(pipeline)  # slips are answered before torch is imported
    check_workers(workers, file)
    check_out(out, len(wanted))
    if not profile:
        choose(methods, preset, plain or speedup is not None)
    inputs_of(options), setup_of(options)

    order = Order(
        pipeline=pipeline,
        wanted=wanted,
        speedup=speedup,
        preset=preset,
        methods=methods,
        profile=profile,
        plain=plain,
        options=options,
        settings=settings,
        batch=batch,
        out=out,
        format=format,
        fps=fps,
        enlarge=enlarge,
        dtype=dtype,
        device=device,
    )
    again = "makes those that are missing" if file else "begins anew"
    tell_if_stopped(f"What is written at {out} is whole; the same command {again}.")
    with closing(Making(order, watched=watched(as_json))) as making:
        for note in making.loaded.notes:
            click.echo(f"note: {note}", err=True)
        kept = making.kept() if file and not overwrite else []
        jobs = making.jobs(kept)
        crew = crew_of(making, partial(Making, order), workers, str(making.loaded.pipe.device))
        begun = time.perf_counter()
        with closing(crew):
            done = [told for _, told in crew.work(jobs)]
        seconds = time.perf_counter() - begun
        if crew.leads:
            tell(making, kept, seconds, None if crew.size == 1 else summed([told for told in done if told]), as_json)


def tell(making: Making, kept: list[Path], seconds: float, shared: dict[str, Any] | None, as_json: bool) -> None:
    """What was made, and what of it was forecast.

    Args:
        kept: the files that were there already.
        shared: what the denoisers did, where several processes did it; else the trace of this one says it.
    """
    run, files, wanted = making.run, making.files, making.order.wanted
    if as_json:
        made = [
            {"path": str(path), "prompt": text, "seed": seed, "kept": path in kept}
            for path, (text, seed) in zip(files, wanted, strict=True)
        ]
        trace = run.trace.as_dict() if run else None
        if trace and shared:
            trace |= {"totals": shared, "calls": None, "parts": None}
        told = {**making.recipe.shared(), "files": made, "seconds": seconds, "trace": trace}
        click.echo(json.dumps(told, indent=2))
        return
    if run is None:
        pocket = making.loaded.pocket
        why = "--plain"
        if pocket is not None and not pocket.forecasts:
            why = f"'{pocket.name}' has no transformer blocks to forecast"
        click.echo(f"Nothing was accelerated ({why}).")
    elif shared:
        click.echo(run.summary().splitlines()[0])
        click.echo(
            f"  {shared['forecast']} of {shared['samples']} denoiser calls forecast, {shared['computed']} computed, by "
            f"all workers: {shared['predicted_speedup'] or 1.0:.2f}x predicted"
        )
    elif len(kept) < len(files):
        click.echo(run.summary())
        forecasting = any(method.place == "forecast" for method in run.methods)
        if forecasting and not making.tuned and not run.trace.totals()["forecast"]:
            click.echo("  note: nothing was forecast; more steps or a higher threshold leave more to skip")
    kind = "clip" if making.clips else "picture"
    where = files[0] if len(files) == 1 else f"{files[0].parent}/"
    there = f" ({len(kept)} of them there already)" if kept else ""
    beside = ", points beside as .ply" if making.clouds else ""
    click.echo(f"{len(files)} {kind}{'s' if len(files) > 1 else ''} in {seconds:.1f} s: {where}{there}{beside}")
