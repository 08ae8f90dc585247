"""`outpace calibration`: how right a classifier of digits is and how far its probabilities can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from outpace.cli.options.numbers import COUNT, STEPS
from outpace.cli.options.output import PLACE
from outpace.cli.terminal import show_traceback_option, watched

EPILOG = """\b
Examples:
  outpace calibration
  outpace calibration --corruption noise-50 --corruption pgd-10 --out out/noise
  outpace calibration my-ladine --steps 100

Reads the 297 digits that nothing was trained or calibrated on, clean, under corruptions and under attacks, with LaDiNE
and with its plain parts: the ViT alone, temperature-scaled, and the mapping networks. Writes report.html, report.md and
results.json; 'outpace report DIR' writes the pages again. 'make bench-ladine' adds rivals and three trainings.
"""


@click.command(epilog=EPILOG, short_help="Accuracy and calibration of LaDiNE under corruption.")
@click.argument("pipeline", default="ladine")
@click.option("--corruption", "names", multiple=True, metavar="NAME", help="One of docs/ladine.md; may be repeated.")
@click.option("--steps", type=STEPS, default=20, show_default=True, help="Reverse diffusion steps.")
@click.option("--samples", type=COUNT, help="Samples of a member [default: the pipeline's].")
@click.option(
    "--out", type=PLACE, default="out/calibration", show_default=True, metavar="DIR", help="Where the report goes."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of text.")
@show_traceback_option
def calibration(
    pipeline: str, names: tuple[str, ...], steps: int, samples: int | None, out: str, as_json: bool
) -> None:
    """Report accuracy, ECE, NLL and Brier score of PIPELINE (the pocket 'ladine', or a folder of the kind)."""
    from outpace.files import check_writable
    from outpace.pipelines.load import find_pipeline

    find_pipeline(pipeline)
    home = Path(out).expanduser()
    check_writable(*(home / name for name in ("report.html", "report.md", "results.json")))
    results = measure(pipeline, names, steps, samples, progress=watched(as_json))
    from outpace.evaluation.atomic import make_folder, write_json
    from outpace.evaluation.report import render

    write_json(make_folder(home) / "results.json", results, indent=1)
    page = render(results, home)
    if as_json:
        click.echo(json.dumps({**results, "report": str(page)}, indent=1))
        return
    from outpace.evaluation.calibration import summary

    rows = summary(results)
    width = max(len(row["label"]) for row in rows)
    for title, part in (("clean", "clean"), ("mean of corruptions", "corrupted")):
        click.echo(f"{click.style(title.ljust(width), bold=True)}  accuracy    ECE    NLL  Brier")
        for row in rows:
            found = row[part]
            figures = "  ".join(f"{found[measure]:.3f}" for measure in ("ece", "nll", "brier"))
            click.echo(f"{row['label']:{width}}  {100 * found['accuracy']:6.1f} %  {figures}")
    click.echo(f"Report: {page}")


def measure(
    pipeline: str, names: tuple[str, ...], steps: int, samples: int | None, *, progress: bool = False
) -> dict[str, Any]:
    """The results of one pipeline.

    Raises: InputError for a pipeline of another kind; UnknownNameError for no corruption.
    """
    from outpace.errors import InputError
    from outpace.evaluation.calibration import CLEAN, calibration_results
    from outpace.pipelines.ladine import LadinePipeline
    from outpace.pipelines.ladine.suite import WAYS, ask, suite, ways_of
    from outpace.pipelines.load import load_pipeline
    from outpace.pipelines.pocket.ladine import held_out_digits

    pipe = load_pipeline(pipeline, progress=False, device="cpu").pipe
    if not isinstance(pipe, LadinePipeline):
        raise InputError(f"'{pipeline}' is a {type(pipe).__name__}, which classifies nothing; give a LaDiNE pipeline")
    pictures, classes = held_out_digits("test")
    from tqdm.auto import tqdm

    chosen = suite(pipe, pictures, classes, {CLEAN, *names} if names else None)
    run: dict[str, Any] = {}
    with tqdm(chosen.items(), desc="corruptions", disable=not progress) as bar:
        for name, worse in bar:
            bar.set_postfix_str(name)
            told = ways_of(pipe, worse, ask(pipe, worse, steps=steps, samples=samples))
            run[name] = {way: found.double().numpy() for way, found in told.items()}
    words = [f" {flag} {value}" for flag, value in (("--steps", steps), ("--samples", samples)) if value is not None]
    words += [f" --corruption {name}" for name in names]
    return calibration_results(
        {0: run},
        classes.numpy(),
        WAYS,
        title=f"{pipeline}: accuracy and calibration",
        command=f"outpace calibration {pipeline}{''.join(words)}",
        notes=[f"LaDiNE takes {steps} reverse steps and {samples or pipe.config['samples']} samples of each member."],
    )
