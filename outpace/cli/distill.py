"""`outpace distill`: a converted pipeline learns from its dense one; killed or stopped, the same command goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from outpace.cli.options.numbers import COUNT, SEED, STEPS, FiniteRange, size_options
from outpace.cli.options.output import PLACE
from outpace.cli.terminal import show_traceback_option, tell_if_stopped, watched

EPILOG = """\b
Examples:
  outpace convert flux --layout 1S12E2A --out out/flux-moe
  outpace distill out/flux-moe --stage joint:1000 --out out/flux-distilled
  outpace distill out/flux-moe --stage shared:300 --stage experts:300 --out out/paper
  accelerate launch --cpu --num_processes 2 -m outpace distill out/flux-moe --out out/flux-distilled
  outpace compare flux --also out/flux-distilled --out out/compared

\b
Stages, in the order given: shared (the shared experts learn to do without the others), experts (the others and their
routers, on frozen shared ones), groups (mixtures of blocks and their routers), joint (everything at once).

\b
The teacher's calls and the checkpoints lie in DIR.training, which may be removed when it is done. Several processes
share the parts of a batch (--parts): with the same parts they make the same model as one process.
"""


@click.command(epilog=EPILOG, short_help="Train a converted pipeline to do what its dense one does.")
@click.argument("student")
@click.option("--out", type=PLACE, required=True, metavar="DIR", help="A new folder for the distilled pipeline.")
@click.option("--teacher", metavar="MODEL", help="The dense pipeline [default: what STUDENT was made from].")
@click.option(
    "--stage", "stages", multiple=True, metavar="NAME:STEPS", help="Repeatable, in order [default: joint:1000]."
)
@click.option("--batch", type=COUNT, default=32, show_default=True, help="Samples a step.")
@click.option("--parts", type=COUNT, default=1, show_default=True, help="A batch is computed in.")
@click.option("--rate", type=FiniteRange(0, 1e4, min_open=True), default=1e-3, show_default=True, help="Of AdamW.")
@click.option("--features", type=FiniteRange(0, 1e6), default=1.0, show_default=True, help="Weight of block features.")
@click.option(
    "--balance", type=FiniteRange(0, 1e6), default=0.1, show_default=True, help="Weight of experts' equal use."
)
@click.option("--average", type=FiniteRange(min=0, max=1), default=0.995, show_default=True, help="Decay of weights.")
@click.option("--bfloat16", is_flag=True, help="Compute in bfloat16 where torch's autocast does.")
@click.option("--every", type=FiniteRange(0, 1e6), default=60.0, show_default=True, help="Seconds between checkpoints.")
@click.option("--prompts", default="64", show_default=True, metavar="N|FILE", help="Of the pocket's, or a file.")
@click.option("--steps", type=STEPS, metavar="N", help="Of denoising, to record [the pipeline's].")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of noise and order.")
@size_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps ...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def distill(
    student: str,
    out: str,
    teacher: str | None,
    stages: tuple[str, ...],
    prompts: str,
    steps: int | None,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Train the transformer of STUDENT, a folder that 'outpace convert' wrote, towards its dense teacher."""
    from outpace.cli.options.prompt import prompts_of, read_count_or_file
    from outpace.files import check_new_folder, check_writable
    from outpace.pipelines.convert import write_pipeline
    from outpace.pipelines.distill import Distillation
    from outpace.pipelines.distill.run import distill_pipeline, is_first_process, teacher_of
    from outpace.pipelines.load import call_arguments, load_pipeline

    size = {name: options.pop(name) for name in ("height", "width", "frames")}
    settings = Distillation(
        stages=tuple(map(read_stage, stages)) or (("joint", 1000),),
        feature_weight=options.pop("features"),
        balance_weight=options.pop("balance"),
        checkpoint_seconds=options.pop("every"),
        **options,
    )
    folder = Path(out).expanduser()
    check_new_folder(folder)
    check_writable(folder.with_name(f"{folder.name}.training") / "x.pt")
    wanted = read_count_or_file(prompts)
    first = is_first_process()
    learner = load_pipeline(student, device=device, progress=first and watched(as_json))
    master = load_pipeline(teacher or teacher_of(learner), device=device, progress=False)
    for loaded in (learner, master):
        loaded.pipe.set_progress_bar_config(disable=True)
    training = folder.with_name(f"{folder.name}.training")
    tell_if_stopped(f"Recorded calls and checkpoints are kept in {training}; the same command goes on from there.")
    facts = distill_pipeline(
        learner,
        master,
        prompts_of(master, wanted, "train"),
        call_arguments(master, steps=steps, **size),
        settings,
        training,
        seed=settings.seed,
        progress=first and watched(as_json),
    )
    if not first:
        return
    told = {"from": master.source.name, "student": student, "distilled": facts}
    write_pipeline(learner, folder, told)
    if as_json:
        click.echo(json.dumps({**told, "out": str(folder)}, indent=2))
        return
    seconds = sum(stage["cpu_seconds"] for stage in facts["stages"])
    click.echo(
        f"Distilled on {facts['samples']:,} calls of {facts['prompts']} prompts in {seconds:,.0f} processor seconds; "
        f"the loss ended at {facts['stages'][-1]['loss']:.3g}."
    )
    click.echo(f"Pipeline: {folder}  (see what it costs: outpace compare {master.source.name} --also {folder} ...)")


def read_stage(text: str) -> tuple[str, int]:
    """The stage that "joint:1000" names. Raises: ConfigError, UnknownNameError."""
    from outpace.errors import ConfigError
    from outpace.pipelines.distill import STAGES

    name, colon, steps = text.partition(":")
    STAGES[name]
    if not colon or not steps.isdecimal():
        raise ConfigError(f"'{text}' does not say how many steps; write {name}:1000")
    return name, int(steps)
