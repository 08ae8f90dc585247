"""`outpace convert`: a dense pipeline becomes a mixture of experts and of blocks, or what that saves is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from outpace.cli.options.numbers import COUNT, SEED, STEPS, FiniteRange, size_options
from outpace.cli.options.output import PLACE
from outpace.cli.terminal import show_traceback_option, tell_if_stopped, watched

if TYPE_CHECKING:
    from outpace.accel.experts import Conversion

EPILOG = """\b
Examples:
  outpace convert flux.1 --count
  outpace convert flux --out out/flux-fast
  outpace convert flux.1 --modulation low_rank:48 --count
  outpace convert flux --layout 1S12E2A --out out/flux-moe
  outpace convert flux --layout 0S16E6A4W --out out/flux-by-noise
  outpace convert owner/model --prompts prompts.txt --group 20-27:4 --out out/moe
  outpace convert flux --to width --keep 0.375 --out out/flux-narrow
  outpace convert flux --to depth --drop 6 --levels 4 --out out/flux-shallow
  outpace convert flux --to int8 --out out/flux-int8
  outpace distill out/flux-moe --out out/flux-distilled
  outpace generate out/flux-moe --prompt "a blue circle above a yellow circle on black"

\b
A layout is 1S12E2A: 1 quarter of the hidden units for the shared expert, 12 routed experts for the rest, 2 of them
active for each token. With 2N behind it, as in 0S8E3A2N, experts are chosen by the noise level instead, here for each
of 2, and run as one dense layer without a router; with 2W all levels take the same first and each has weights of its
own. Layers and levels where units are worth more run more of them, the others fewer, unless --even. A group is
20-27:4: of blocks 20 to 27 (counted from 0), 4 run for each sample.

\b
Fitted, hidden units that answer to the same tokens go to one expert, routers begin as the linear prediction of what
each expert or block adds on PROMPTS, and weights by noise level as the least squares fit of the dense layer. Random is
as in the paper: dealt in turn, routers know nothing yet; weights by noise level begin alike.

\b
With --levels, noise levels leave out parts of one list of blocks, more of it where they are missed less: what comes out
best once it is trained. With --stand-ins each has a list of its own, and an affine function of the tokens stands in for
consecutive blocks, fitted on PROMPTS: nearer to the dense model as it is, and further off once it is trained.

\b
The result starts from the dense weights and has not been trained: until it is distilled it is worse than the dense
model. 'docs/dense2moe.md' says what is exact and what is not.

\b
8-bit codes need no training: some 64 weights of a linear layer share a scale. They save memory, not time. Products of
whole numbers round what the weights are multiplied with, too. 'docs/int8.md' has what both cost.
"""

GOAL_OF = {
    "layout": "moe", "even": "moe", "scores": "moe", "scaling": "moe", "keep": "width", "drop": "depth",
    "levels": "depth", "stand_ins": "depth", "products": "int8",
}  # fmt: skip
"""Options that mean something for one goal only."""
TOKEN_LAYOUT = "1S12E2A"
"""The paper's, in which every token chooses."""


@click.command(epilog=EPILOG, short_help="Turn a dense pipeline into a mixture of experts, a pruned or an 8-bit one.")
@click.argument("model")
@click.option(
    "--to",
    "goal",
    type=click.Choice(["moe", "width", "depth", "int8"]),
    default="moe",
    show_default=True,
    help="Mixture of experts; pruned, to compare with; or 8-bit codes.",
)
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="For moe: shared, routed and active experts; auto takes what runs fastest here.",
)
@click.option(
    "--keep",
    type=FiniteRange(min=0, max=1, min_open=True),
    default=0.375,
    show_default=True,
    help="For width: share of the hidden units.",
)
@click.option("--drop", type=COUNT, metavar="N", help="For depth: blocks, those missed least.")
@click.option(
    "--levels",
    type=COUNT,
    metavar="N",
    help="For depth: noise levels, each of which leaves out blocks of its own; --drop is the mean.",
)
@click.option("--stand-ins", is_flag=True, help="For depth with --levels: fit what stands in for blocks, see below.")
@click.option("--products", is_flag=True, help="For int8: whole 8-bit products, too; slower without hardware for them.")
@click.option(
    "--scores", type=click.Choice(["softmax", "sigmoid"]), default="softmax", show_default=True, help="Of the router."
)
@click.option(
    "--scaling",
    type=click.Choice(["one", "none", "normalize", "experts"]),
    default="one",
    show_default=True,
    help="Of the chosen experts' gates.",
)
@click.option("--group", "groups", multiple=True, metavar="FIRST-LAST:RUN", help="A mixture of blocks (repeatable).")
@click.option("--modulation", metavar="KIND", help="Compress adaLN: low_rank:48 or shared.")
@click.option(
    "--order",
    type=click.Choice(["taylor", "weights", "random"]),
    default="taylor",
    show_default=True,
    help="Importance that decides what is shared.",
)
@click.option(
    "--start",
    type=click.Choice(["fitted", "random"]),
    default="fitted",
    show_default=True,
    help="Of experts and routers, see below.",
)
@click.option("--even", is_flag=True, help="For layouts by noise level: as many experts in every layer.")
@click.option(
    "--prompts",
    default="16",
    show_default=True,
    metavar="N|FILE",
    help="To go by: of the pocket's, or a file.",
)
@click.option("--steps", type=STEPS, metavar="N", help="To go by [default: the pipeline's].")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of noise and routers.")
@click.option("--out", type=PLACE, metavar="DIR", help="A new folder for the converted pipeline.")
@click.option("--count", "only_count", is_flag=True, help="Only count parameters and FLOPs, without weights.")
@size_options
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: as the device likes]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps ...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def convert(
    model: str,
    goal: str,
    layout: str,
    keep: float,
    drop: int | None,
    levels: int | None,
    stand_ins: bool,
    products: bool,
    scores: str,
    scaling: str,
    groups: tuple[str, ...],
    modulation: str | None,
    out: str | None,
    only_count: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert the transformers of MODEL, a pocket, a folder or a hub id, and write the pipeline to DIR.

    With --count, MODEL may also be a published model ('outpace estimate list'): nothing is loaded then.
    """
    if (out is None) != only_count:
        raise click.UsageError("give --out DIR to convert, or --count to count only, and one of them.")
    for name, belongs in GOAL_OF.items():
        if belongs != goal and click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} belongs to --to {belongs}, and this is --to {goal}.")
    if goal == "depth" and drop is None:
        raise click.UsageError("--to depth needs to know how many blocks: --drop N.")
    if stand_ins and levels is None:
        raise click.UsageError("--stand-ins are for blocks that noise levels leave out: --levels N.")
    size = {name: options.pop(name) for name in ("height", "width", "frames")}
    chosen = TOKEN_LAYOUT if layout == "auto" else layout
    given_blocks = {"drop": drop or 0, "levels": levels or 0, "stand_ins": stand_ins}
    conversion = read_conversion(goal, chosen, keep, scores, scaling, groups, modulation, products, **given_blocks)
    given = click.get_current_context().get_parameter_source
    routed = any(given(name) is ParameterSource.COMMANDLINE for name in ("scores", "scaling", "start"))
    few = options["steps"] is not None and options["steps"] < 4
    auto = goal == "moe" and layout == "auto" and options["order"] == "taylor" and not (routed or few)
    if only_count:
        _count(model, with_fastest_layout(model, conversion, size) if auto else conversion, size, as_json)
        return
    assert out is not None
    options |= given_blocks | {"auto": auto, "progress": watched(as_json)}
    told = _convert(model, conversion, Path(out).expanduser(), size, **options)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    if goal == "int8":
        click.echo(
            f"{told['integer_layers']} linear layers hold 8-bit codes: weights take {told['bytes'] / 1e6:,.1f} MB "
            f"instead of {told['dense_bytes'] / 1e6:,.1f} MB."
        )
        click.echo(f"Pipeline: {out}  (what it costs: outpace compare {model} --also {out})")
        return
    by_level = " on average, other ones at each noise level" if levels else ""
    split = f" to {told['conversion']['experts']['layout']}" if goal == "moe" else ""
    click.echo(
        f"{told['layers']} feed-forward layers converted{split}, {drop or 0} blocks dropped{by_level}: a token uses "
        f"{told['active_parameters']:,} parameters instead of {told['dense_parameters']:,}. Not distilled yet: expect "
        "worse than dense."
    )
    click.echo(f"Pipeline: {out}  (train it: outpace distill {out} --out {out}-distilled)")


def find_size(model: str, size: dict[str, int | None]) -> tuple[str, dict[str, int]]:
    """What counts and trial calls are given for MODEL, and the size of a call; steps say nothing of one."""
    from outpace.cli.options.model import find_source

    source, given = find_source(model, **size)
    given.pop("steps", None)
    return source, given


def with_fastest_layout(model: str, conversion: Conversion, size: dict[str, int | None]) -> Conversion:
    """`conversion` with what --layout auto stands for.

    A model whose calls cannot be tried from its configuration keeps the paper's. Raises: UnknownNameError for no model.
    """
    from dataclasses import replace

    from outpace.accel.experts import Experts, choose_layout
    from outpace.errors import InputError, UnsupportedModelError

    try:
        source, given = find_size(model, size)
        return replace(
            conversion, experts=replace(conversion.experts or Experts(), layout=choose_layout(source, **given))
        )
    except (InputError, UnsupportedModelError):
        return conversion


def read_conversion(
    goal: str,
    layout: str,
    keep: float,
    scores: str,
    scaling: str,
    groups: tuple[str, ...],
    modulation: str | None,
    products: bool,
    *,
    drop: int = 0,
    levels: int = 0,
    stand_ins: bool = False,
) -> Conversion:
    """The conversion that the options describe; which blocks are dropped or left out is not known yet.

    Raises: ConfigError.
    """
    from outpace.accel.experts import BlockGroup, Conversion, Experts, Integers, Modulation
    from outpace.errors import ConfigError

    smaller = None
    if modulation is not None:
        kind, colon, rank = modulation.partition(":")
        if colon and not rank.isdecimal():
            raise ConfigError(f"cannot read --modulation '{modulation}'; write low_rank:48 or shared")
        smaller = Modulation(kind=kind, **({"rank": int(rank)} if colon else {}))
    return Conversion(
        experts=Experts(layout=layout, scores=scores, scaling=scaling) if goal == "moe" else None,
        width=keep if goal == "width" else None,
        dropped=() if levels else tuple(range(1, 1 + drop)),
        left_out=(tuple(range(1, 1 + drop)),) * levels,
        stand_ins=stand_ins,
        groups=tuple(BlockGroup.parse(group) for group in groups),
        modulation=smaller,
        integers=Integers(inputs=8 if products else None) if goal == "int8" else None,
    )


def _count(model: str, conversion: Conversion, size: dict[str, int | None], as_json: bool) -> None:
    from dataclasses import replace

    from outpace.accel.experts import count, try_call

    source, given = find_size(model, size)
    told = count(source, conversion, **given)
    tried = try_call(source, conversion, **given)
    if tried is not None:
        told = replace(told, dense_seconds=tried.dense_seconds, seconds=tried.seconds)
    layout = None if conversion.experts is None else conversion.experts.layout
    if as_json:
        click.echo(json.dumps({**told.to_dict(), "layout": layout}, indent=2))
        return
    click.echo(told.summary() + ("" if layout is None else f"\n  layout {layout}"))
    if tried is None:
        click.echo("  time of a call not tried: it is too large for that")


def _convert(
    model: str,
    conversion: Conversion,
    folder: Path,
    size: dict[str, int | None],
    *,
    order: str,
    start: str,
    even: bool,
    drop: int,
    levels: int,
    stand_ins: bool,
    auto: bool,
    prompts: str,
    steps: int | None,
    seed: int,
    dtype: str | None,
    device: str,
    progress: bool,
) -> dict[str, Any]:
    import torch

    from outpace.accel.denoiser import denoisers_of
    from outpace.accel.experts import (
        CutFeedForward,
        ExpertFeedForward,
        NoiseFeedForward,
        active_parameters,
        conversion_of,
        find_integers,
        parameter_count,
        weight_bytes,
    )
    from outpace.cli.options.prompt import prompts_of, read_count_or_file
    from outpace.files import check_new_folder
    from outpace.pipelines.convert import convert_pipeline, write_pipeline
    from outpace.pipelines.load import call_arguments, find_pipeline, load_pipeline

    check_new_folder(folder)
    find_pipeline(model)
    wanted = read_count_or_file(prompts)
    if auto:
        conversion = with_fastest_layout(model, conversion, size)
    loaded = load_pipeline(model, dtype=getattr(torch, dtype) if dtype else None, device=device, progress=progress)
    loaded.pipe.set_progress_bar_config(desc="running the pipeline", disable=not progress)
    tell_if_stopped("Nothing was written.")
    before = [module for _, module in denoisers_of(loaded.pipe)]
    dense, dense_bytes = sum(map(parameter_count, before)), sum(map(weight_bytes, before))
    del before
    convert_pipeline(
        loaded,
        conversion,
        order=order,
        prompts=prompts_of(loaded, wanted) if goes_by_prompts(conversion, order, start, drop) else (),
        arguments=call_arguments(loaded, steps=steps, **size),
        start=start,
        spread=not even,
        drop=drop,
        drop_levels=levels,
        stand_ins=stand_ins,
        seed=seed,
        progress=progress,
    )
    found = [module for _, module in denoisers_of(loaded.pipe)]
    told = {
        "conversion": (conversion_of(found[0]) or conversion).to_dict(),  # with what was measured: borders, blocks
        "from": model,
        "order": order,
        "start": start,
        "layers": sum(
            isinstance(part, CutFeedForward | ExpertFeedForward | NoiseFeedForward)
            for module in found
            for part in module.modules()
        ),
        "dense_parameters": dense,
        "parameters": sum(map(parameter_count, found)),
        "active_parameters": sum(map(active_parameters, found)),
        "integer_layers": sum(len(find_integers(module)) for module in found),
        "dense_bytes": dense_bytes,
        "bytes": sum(map(weight_bytes, found)),
    }
    write_pipeline(loaded, folder, told)
    return {**told, "out": str(folder)}


def goes_by_prompts(conversion: Conversion, order: str, start: str, drop: int) -> bool:
    """True where what is asked for depends on what the pipeline does on prompts; by default it does."""
    layers = conversion.experts is not None or conversion.width is not None
    routed = conversion.experts is not None or bool(conversion.groups)
    return drop > 0 or (layers and order == "taylor") or (routed and start == "fitted")
