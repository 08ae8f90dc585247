"""`outpace estimate`: what a model costs and what sparse attention can gain on it, before anything is downloaded."""

from __future__ import annotations

import json

import click

from outpace.cli.options.model import find_source
from outpace.cli.options.numbers import COUNT, STEPS, FiniteRange, size_options
from outpace.cli.terminal import show_traceback_option

EPILOG = """\b
Examples:
  outpace estimate hunyuanvideo --device h200
  outpace estimate flux.1 --height 2048 --width 2048 --device rtx4090
  outpace estimate wan2.1-14b --height 480 --width 832 --steps 30 --sparsity 0.9
  outpace estimate my/pipeline --height 512 --width 512 --device this

\b
MODEL: a published model, a pocket ('outpace pocket list'), or a folder of a diffusers pipeline or transformer.
'outpace estimate list' shows the published models and the devices that are known.
"""


@click.command(epilog=EPILOG, short_help="Say what sparse attention can gain on a model, without its weights.")
@click.argument("model")
@size_options
@click.option("--steps", type=STEPS, metavar="N", help="Denoising steps [default: the model's].")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="h200, a100 ..., cpu or this (measured), auto: GPU here or h100.",
)
@click.option(
    "--sparsity",
    type=FiniteRange(min=0, max=1, max_open=True),
    default=0.8,
    show_default=True,
    help="Share of attention left out.",
)
@click.option(
    "--warmup", type=FiniteRange(min=0, max=1), default=0.1, show_default=True, help="Share of steps that stay dense."
)
@click.option("--searches", type=COUNT, default=2, show_default=True, help="Searches for blocks a run.")
@click.option("--fresh/--no-fresh", default=True, show_default=True, help="Later searches run dense attention again.")
@click.option("--text-tokens", type=COUNT, metavar="N", help="Of the prompt [default: the longest].")
@click.option("--calls", type=COUNT, metavar="N", help="Of the denoiser a step [default: the model's].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def estimate(
    model: str,
    height: int | None,
    width: int | None,
    frames: int | None,
    steps: int | None,
    device: str,
    sparsity: float,
    warmup: float,
    searches: int,
    fresh: bool,
    text_tokens: int | None,
    calls: int | None,
    as_json: bool,
) -> None:
    """Count MODEL's FLOPs from its configuration and say whether sparse attention is worth it at this size.

    The real forward pass runs on torch's meta device: no weights, no network, a few seconds. Times are FLOPs over the
    device's rates, of the denoiser alone.
    """
    if model == "list":
        _list(as_json)
        return
    from outpace.accel.estimate import estimate as run

    source, size = find_source(model, height=height, width=width, frames=frames, steps=steps)
    told = run(
        source,
        **size,
        device=device,
        sparsity=sparsity,
        warmup=warmup,
        searches=searches,
        fresh=fresh,
        text_tokens=text_tokens,
        calls=calls,
    )
    click.echo(json.dumps(told.to_dict(), indent=2) if as_json else told.summary())


def _list(as_json: bool) -> None:
    from outpace.accel.estimate import DEVICES, MODELS

    if as_json:
        models = {
            name: {"transformer": m.transformer, "height": m.height, "width": m.width, "frames": m.frames}
            for name, m in MODELS.items()
        }
        devices = {
            name: {"dense": d.dense, "gemm": d.gemm, "sparse": d.sparse, "mass": d.mass, "source": d.source}
            for name, d in DEVICES.items()
        }
        click.echo(json.dumps({"models": models, "devices": devices}, indent=2))
        return
    width = max(map(len, [*MODELS, *DEVICES]))
    for name, m in MODELS.items():
        frames = f", {m.frames} frames" if m.frames else ""
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {m.width} x {m.height}{frames} ({m.transformer})")
    for name, d in DEVICES.items():
        rates = f"dense {d.dense:g}, products {d.gemm:g}, sparse {d.sparse:g} TFLOP/s"
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {rates}")
