"""`outpace generate`: pictures or clips from a pipeline, faster, each with the recipe that makes it again."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from outpace.cli.terminal import FiniteRange, show_traceback_option

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.pipelines.load import Loaded

DEFAULT_PRESET = "balanced"

EPILOG = """\b
Examples:
  outpace generate flux --prompt "a blue circle above a yellow circle on black" --out circle.png
  outpace generate dit --prompt 3 --seed 1-8 --batch 8 --preset fast
  outpace generate wan --prompt "a white square moves up slowly" --format gif --enlarge 8
  outpace generate flux --prompts prompts.txt --method gated_taylor:threshold=0.05 --method solver:solver=unipc
  outpace generate flux --prompt "a red square on blue" --profile out/tune/profile.json
  outpace generate black-forest-labs/FLUX.1-dev --prompt "a fox in the snow" --device cuda --dtype bfloat16

PIPELINE is a pocket pipeline ('outpace pocket list'), a folder written by save_pretrained, or a hub id.
"""


@click.command(epilog=EPILOG, short_help="Make pictures or clips, faster.")
@click.argument("pipeline")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="What to make; may be repeated.")
@click.option("--prompts", "file", metavar="FILE", help="A file with one prompt a line; - reads standard input.")
@click.option("--preset", metavar="NAME", help=f"A tuned choice of methods [default: {DEFAULT_PRESET}].")
@click.option("--method", "methods", multiple=True, metavar="NAME[:KEY=VALUE,...]", help="A method; may be repeated.")
@click.option("--profile", metavar="FILE", help="Settings that 'outpace tune' found, with their number of steps.")
@click.option("--plain", is_flag=True, help="No acceleration: the pipeline as it is.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Denoising steps [default: the pipeline's].")
@click.option("--seed", default="0", show_default=True, metavar="INT[,INT-INT]", help="One, or one a prompt.")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="Prompts a call.")
@click.option("--guidance", type=FiniteRange(min=0), metavar="SCALE", help="Classifier-free guidance scale.")
@click.option("--height", type=click.IntRange(min=1), metavar="PIXELS", help="[default: the pipeline's]")
@click.option("--width", type=click.IntRange(min=1), metavar="PIXELS", help="[default: the pipeline's]")
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Frames of a clip [default: the pipeline's].")
@click.option(
    "--fps",
    type=FiniteRange(min=0, min_open=True),
    default=8.0,
    metavar="RATE",
    show_default=True,
    help="Frames a second.",
)
@click.option("--out", default="out", show_default=True, metavar="PATH", help="A file, or a folder for several.")
@click.option("--format", type=click.Choice(["png", "mp4", "gif"]), help="[default: png, or mp4 for clips]")
@click.option(
    "--enlarge", type=click.IntRange(1, 64), default=1, metavar="N", help="Save each pixel as a square of this size."
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: as the device likes]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps ...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def generate(
    pipeline: str,
    prompts: tuple[str, ...],
    file: str | None,
    preset: str | None,
    methods: tuple[str, ...],
    profile: str | None,
    plain: bool,
    seed: str,
    batch: int,
    out: str,
    format: str | None,
    fps: float,
    enlarge: int,
    dtype: str | None,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make a picture or a clip for every prompt with PIPELINE, accelerated."""
    from outpace.cli.output_option import check_out, plan_files
    from outpace.cli.prompt_option import pair, read_seeds, read_texts

    if sum((bool(preset), bool(methods), bool(profile), plain)) > 1:
        raise click.UsageError("--preset, --method, --profile and --plain exclude each other; keep one")
    wanted = pair(read_texts(prompts, file), read_seeds(seed))
    from outpace.pipelines.load import find_pipeline

    find_pipeline(pipeline)  # slips are answered before torch is imported
    check_out(out, len(wanted))
    import torch

    from outpace.accel import Profile, accelerate
    from outpace.cli.recipe import Recipe
    from outpace.pipelines.load import call_arguments, load_pipeline, makes_clips, read_prompts, run_pipeline
    from outpace.pipelines.media import enlarge as enlarge_media
    from outpace.pipelines.media import save_media

    tuned = Profile.load(profile) if profile else None
    if tuned is not None:
        # As tuned, unless the command line says otherwise; the summary then says that nothing is promised.
        known = {"steps": tuned.steps, **{k: v for k, v in tuned.call.items() if k in settings}}
        settings = {k: known.get(k) if v is None else v for k, v in settings.items()}
    chosen, preset = ([], None) if tuned else _choose(methods, preset, plain)

    watched = sys.stderr.isatty() and not as_json
    loaded = load_pipeline(pipeline, dtype=getattr(torch, dtype) if dtype else None, device=device, progress=watched)
    arguments = call_arguments(loaded, **settings)
    samples = read_prompts(loaded, [text for text, _ in wanted])
    files = plan_files(out, format, wanted, clip=makes_clips(loaded))
    begun = time.perf_counter()
    run = None if plain else accelerate(loaded.pipe, *chosen, preset=preset, profile=tuned)
    try:
        recipe = Recipe(
            pipeline=pipeline,
            acceleration=("--profile", profile) if profile else _words_of(methods, preset, plain),
            settings={k: v for k, v in {**settings, "dtype": dtype}.items() if v is not None},
            arguments=arguments,
            device=str(loaded.pipe.device),
            methods=run.trace.as_dict()["methods"] if run else [],
        )
        for first in range(0, len(wanted), batch):
            part = slice(first, first + batch)
            _label_progress(loaded, first, len(wanted[part]), len(wanted), watched=watched)
            made = run_pipeline(loaded, samples[part], [number for _, number in wanted[part]], arguments)
            for media, (text, number), path in zip(made, wanted[part], files[part], strict=True):
                save_media(enlarge_media(media, enlarge), path, recipe.of(text, number), frames_per_second=fps)
    finally:
        if run:
            run.restore()
    seconds = time.perf_counter() - begun
    if as_json:
        made_files = [{"path": str(f), "prompt": t, "seed": n} for f, (t, n) in zip(files, wanted, strict=True)]
        trace = run.trace.as_dict() if run else None
        click.echo(json.dumps({**recipe.shared(), "files": made_files, "seconds": seconds, "trace": trace}, indent=2))
        return
    click.echo(run.summary() if run else "Nothing was accelerated (--plain).")
    if run and not tuned and not run.trace.totals()["forecast"]:
        click.echo("  note: nothing was forecast; more steps or a higher threshold leave more to skip")
    kind = "clip" if makes_clips(loaded) else "picture"
    where = files[0] if len(files) == 1 else f"{files[0].parent}/"
    click.echo(f"{len(files)} {kind}{'s' if len(files) > 1 else ''} in {seconds:.1f} s: {where}")


def _choose(texts: tuple[str, ...], preset: str | None, plain: bool) -> tuple[list[Method], str | None]:
    """The methods given, or else a preset's name, checked before anything is loaded."""
    from outpace.accel import PRESETS
    from outpace.cli.method_option import parse_method

    if plain or texts:
        return [parse_method(text) for text in texts], None
    preset = preset or DEFAULT_PRESET
    PRESETS[preset]
    return [], preset


def _words_of(methods: tuple[str, ...], preset: str | None, plain: bool) -> tuple[str, ...]:
    if plain:
        return ("--plain",)
    return ("--preset", preset) if preset else tuple(word for text in methods for word in ("--method", text))


def _label_progress(loaded: Loaded, first: int, size: int, count: int, *, watched: bool) -> None:
    label = f"{first + 1}-{first + size} of {count}" if size > 1 else f"{first + 1} of {count}"
    loaded.pipe.set_progress_bar_config(desc=label, disable=not watched)
