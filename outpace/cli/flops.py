"""`outpace flops`: what a run computes, part by part, and the most that forecasting steps can gain on it."""

from __future__ import annotations

import json
from typing import Any

import click

from outpace.cli.options.model import find_source, folder_of
from outpace.cli.options.numbers import COUNT, STEPS, size_options
from outpace.cli.terminal import show_traceback_option

EPILOG = """\b
Examples:
  outpace flops flux.1
  outpace flops wan2.1-14b --height 480 --width 832 --frames 81 --steps 30
  outpace flops qwen-image --no-guidance --json
  outpace flops my/pipeline --height 512 --width 512 --dtype float32

\b
MODEL: a published model ('outpace estimate list' shows them), a pocket ('outpace pocket list'), or a folder of a
diffusers pipeline or transformer.
"""


@click.command(epilog=EPILOG, short_help="Count a model's FLOPs by part, and the ceiling of forecasting.")
@click.argument("model")
@size_options
@click.option("--steps", type=STEPS, metavar="N", help="Denoising steps [default: the model's].")
@click.option("--guidance/--no-guidance", default=None, help="Two calls a step, or one [default: the model's].")
@click.option("--text-tokens", type=COUNT, metavar="N", help="Of the prompt [default: the longest].")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    default="bfloat16",
    show_default=True,
    help="Of weights and of what is remembered.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def flops(model: str, dtype: str, as_json: bool, **asked: Any) -> None:
    """Count what a run of MODEL computes by part, what a forecast step still runs, and what forecasting remembers.

    The real forward pass runs on torch's meta device: no weights, no network, a few seconds.
    """
    from outpace.accel.estimate.counted import counted

    source, given = find_source(model)
    asked = {word: value for word, value in asked.items() if value is not None}
    told = None if asked or dtype != "bfloat16" else counted(model, folder_of(model))
    if told is None:
        from outpace.accel.estimate import flops as run

        told = run(source, **{**given, **asked}, dtype=dtype)
    click.echo(json.dumps(told.to_dict(), indent=2) if as_json else told.summary())
