"""`outpace serve`: a pipeline behind OpenAI's image API, a quality for each request."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import click

from outpace.cli.options.numbers import COUNT, MOST_PIXELS, MOST_SAMPLES, FiniteRange, WholeRange
from outpace.cli.terminal import show_traceback_option

if TYPE_CHECKING:
    from outpace.serve.orders import Maker

EPILOG = """\b
Examples:
  outpace serve flux
  outpace serve black-forest-labs/FLUX.1-dev --device cuda --replicas 4 --max-batch 16 --quality high
  outpace serve flux --speedup 2.5
  outpace serve flux --profile medium=out/tune/profile.json
  curl http://127.0.0.1:8000/v1/images/generations -H "Content-Type: application/json" \\
    -d '{"prompt": "a blue circle above a yellow circle on black", "quality": "high", "seed": 1}'

PIPELINE is a pocket pipeline ('outpace pocket list'), a folder written by save_pretrained, or a hub id.
Replicas are Ray Serve's: on this machine, or on the cluster of RAY_ADDRESS.
"""


@click.command(epilog=EPILOG, short_help="Answer OpenAI's image API, for many users at once.")
@click.argument("pipeline")
@click.option("--quality", default="medium", show_default=True, metavar="TIER", help="Where a request asks for none.")
@click.option(
    "--speedup", type=FiniteRange(1, 1000), metavar="X", help="What medium means: so many times fewer blocks."
)
@click.option(
    "--profile", "profiles", multiple=True, metavar="[TIER=]FILE", help="What a tier means, as 'outpace tune' wrote it."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is the world.")
@click.option("--port", type=WholeRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--replicas",
    type=WholeRange(0, MOST_SAMPLES),
    default=1,
    show_default=True,
    metavar="N",
    help="Engines, each a process of Ray Serve; 0: this process is the engine, without Ray.",
)
@click.option("--max-batch", type=COUNT, default=8, show_default=True, help="Pictures made together.")
@click.option(
    "--wait",
    type=FiniteRange(0, 10),
    default=0.02,
    show_default=True,
    metavar="SECONDS",
    help="How long the first of a batch waits for company.",
)
@click.option("--queue", type=COUNT, default=64, show_default=True, help="Pictures waiting at most.")
@click.option(
    "--timeout", type=FiniteRange(min=1), default=600, show_default=True, metavar="SECONDS", help="For one answer."
)
@click.option(
    "--max-pixels", type=WholeRange(1, MOST_PIXELS**2), metavar="N", help="[default: 4 times the pipeline's own size]"
)
@click.option("--max-steps", type=COUNT, metavar="N", help="[default: 4 times the pipeline's own]")
@click.option("--api-key", envvar="OUTPACE_API_KEY", show_envvar=True, metavar="KEY", help="What clients have to send.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: as the device likes]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps ...")
@show_traceback_option
def serve(
    pipeline: str,
    quality: str,
    speedup: float | None,
    profiles: tuple[str, ...],
    host: str,
    port: int,
    replicas: int,
    max_batch: int,
    wait: float,
    queue: int,
    timeout: float,
    max_pixels: int | None,
    max_steps: int | None,
    api_key: str | None,
    dtype: str | None,
    device: str,
) -> None:
    """Answer OpenAI's image API with PIPELINE: strangers share batches, and each has a quality of their own."""
    from outpace.errors import ConfigError, MissingDependencyError
    from outpace.pipelines.load import choose_device, find_pipeline
    from outpace.serve.tiers import read_profiles, tier_named

    needed = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus_client", "ray": "ray[serve]"}
    missing = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if missing and (replicas or missing != ["ray[serve]"]):
        raise MissingDependencyError(f"serving needs {', '.join(missing)}: pip install 'outpace[serve]'")
    find_pipeline(pipeline)  # slips are answered before torch is imported
    choose_device(device)
    usual, tuned = tier_named(quality, "medium"), read_profiles(profiles)
    if speedup is not None and any(tier == "medium" for tier, _ in tuned):
        raise ConfigError("--speedup and a --profile of medium both say what medium means; keep one")
    if api_key is not None and not (api_key.strip() and api_key.isascii()):
        raise ConfigError("--api-key is empty, or has letters that no header holds; give another key, or leave it out")

    from outpace.accel import Profile
    from outpace.serve.app import ServeSettings
    from outpace.serve.engine import EngineSettings
    from outpace.serve.running import LOOPBACK, make_maker, run

    for _, file in tuned:
        Profile.load(file)
    settings = ServeSettings(
        usual=usual, queue=queue, seconds=timeout, max_pixels=max_pixels, max_steps=max_steps, api_key=api_key
    )
    engine = EngineSettings(pipeline=pipeline, device=device, dtype=dtype, profiles=tuned, speedup=speedup)

    def make() -> Maker:
        click.echo(f"loading {pipeline} ...", err=True)
        return make_maker(engine, replicas, max_batch, wait)

    def tell(address: str) -> None:
        count = f"{replicas} replica{'s' * (replicas != 1)}" if replicas else "this process"
        click.echo(f"{pipeline} is served at {address} by {count}; Ctrl-C ends it")
        if host not in LOOPBACK and api_key is None:
            click.echo("note: whoever reaches this address can use it; --api-key asks for a key", err=True)

    run(host, port, make, settings, tell)
