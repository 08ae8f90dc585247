"""`outpace tune`: settings that keep a stated target, found on some prompts and certified on others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outpace.cli.options.numbers import COUNT, MOST_STEPS, SEED, FiniteRange, WholeRange, size_options
from outpace.cli.options.output import PLACE
from outpace.cli.terminal import command_line, show_traceback_option, tell_if_stopped, watched

if TYPE_CHECKING:
    from outpace.cli.contenders.bench import Bench
    from outpace.cli.tuning.run import Outcome

EPILOG = """\b
Examples:
  outpace tune dit --target "psnr>=35"
  outpace tune wan --target "speedup>=3"
  outpace tune flux --target "ssim>=0.98" --target "blocks<=40%" --budget 10m --out flux.json
  outpace tune owner/model --prompts prompts.txt --target "psnr>=30" --device cuda --budget 2h
  outpace generate flux --prompt "a blue circle above a yellow circle on black" --profile flux.json

\b
A target is a metric (psnr, ssim, latent_l2), compared with the plain pipeline at the same prompt and seed, or a share
of what the plain pipeline spends: blocks (computed work, "speedup>=3" says the same as "blocks<=1/3" would) or time.
Several must all be kept by the same request. Without a metric the most faithful setting that keeps the share is
sought, else the one with the least work.

\b
Settings are chosen on calibration prompts and certified on held-out ones: at most RISK of requests drawn like those
miss the target, and this is said wrongly in at most ALPHA of the draws. Exit code 1: no such promise could be made.

\b
Measurements are kept beside the profile: the same command continues where it stopped.
"""

SHARE = FiniteRange(min=0, max=1, min_open=True, max_open=True)


@click.command(epilog=EPILOG, short_help="Find settings that keep a target, and certify them.")
@click.argument("pipeline")
@click.option("--target", "targets", multiple=True, required=True, metavar="CLAUSE", help='"psnr>=30" (repeatable).')
@click.option("--budget", default="20m", show_default=True, metavar="TIME", help="How long: 90s, 20m, 1.5h.")
@click.option("--alpha", type=SHARE, default=0.1, show_default=True, help="Chance of a wrong promise.")
@click.option("--risk", type=SHARE, default=0.1, show_default=True, help="Share of requests that may miss the target.")
@click.option(
    "--prompts", default="64", show_default=True, metavar="N|FILE", help="How many of the pocket's certify, or a file."
)
@click.option(
    "--calibration",
    type=COUNT,
    default=16,
    show_default=True,
    metavar="N",
    help="Prompts to choose by.",
)
@click.option(
    "--out", type=PLACE, default="out/tune/profile.json", show_default=True, metavar="FILE", help="The profile."
)
@click.option("--steps", type=WholeRange(2, MOST_STEPS), metavar="N", help="Of the plain pipeline [default: its own].")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the first prompt.")
@click.option("--batch", type=COUNT, default=8, show_default=True, metavar="N", help="Prompts a call.")
@click.option("--guidance", type=FiniteRange(0, 1000), metavar="SCALE", help="Classifier-free guidance scale.")
@size_options
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: as the device likes]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps ...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
@click.pass_context
def tune(
    context: click.Context,
    pipeline: str,
    targets: tuple[str, ...],
    budget: str,
    alpha: float,
    risk: float,
    prompts: str,
    calibration: int,
    out: str,
    seed: int,
    batch: int,
    dtype: str | None,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Find settings of PIPELINE that keep the target with the least work, and certify them on held-out prompts.

    Writes them as a profile for 'outpace generate --profile FILE' and outpace.accelerate(pipe, profile=FILE).
    """
    from outpace.cli.options.budget import read_budget
    from outpace.cli.options.prompt import read_count_or_file
    from outpace.cli.tuning.prompts import check_enough, requests_of, split_lines
    from outpace.files import check_writable
    from outpace.pipelines.load import call_arguments, find_pipeline, load_pipeline

    seconds = read_budget(budget)
    find_pipeline(pipeline)  # slips are answered before torch is imported
    wanted = read_count_or_file(prompts)
    held_out = wanted if isinstance(wanted, int) else len(split_lines(wanted, calibration, seed)[1])
    check_enough(held_out, risk, alpha)
    path = Path(out).expanduser()
    check_writable(path)
    from outpace.evaluation.tune import Deadline, parse_target

    target = parse_target(targets)
    tell_if_stopped(
        f"What was measured is kept in {path.with_suffix('.measured')}; the same command goes on, in the same budget."
    )
    import torch

    from outpace.cli.contenders.bench import Bench
    from outpace.cli.contenders.curve import plain
    from outpace.cli.contenders.study import identity
    from outpace.cli.tuning.measuring import Measuring
    from outpace.cli.tuning.run import Promise, run_tuning
    from outpace.evaluation.records import fingerprint

    loaded = load_pipeline(
        pipeline, dtype=getattr(torch, dtype) if dtype else None, device=device, progress=watched(as_json)
    )
    loaded.pipe.set_progress_bar_config(disable=True)
    bench = Bench(loaded=loaded, arguments=call_arguments(loaded, **settings))
    choosing, certifying = requests_of(loaded, wanted, calibration, seed)
    known = identity(bench)
    # Every set of requests has a folder of its own: references are kept by their place in it.
    kept = path.with_suffix(".measured") / fingerprint(known, [str(r) for r in (*choosing, *certifying)])
    measuring = Measuring(bench=bench, plain=plain(bench), folder=kept, target=target, batch=batch, identity=known)
    promise = Promise(target=target, risk=risk, alpha=alpha)
    deadline = Deadline(seconds, measuring.clock)
    outcome = run_tuning(measuring, choosing, certifying, promise, deadline, progress=watched(as_json))
    if outcome.best is not None:
        profile_of(bench, outcome, settings, command_line()).save(path)
    show(outcome, path if outcome.best is not None else None, pipeline, as_json)
    if outcome.certificate.chosen is None:
        context.exit(1)


def profile_of(bench: Bench, outcome: Outcome, settings: dict[str, Any], command: str) -> Any:
    """The profile of the best settings that were found."""
    from datetime import datetime, timezone

    from outpace.accel import Profile
    from outpace.accel.denoiser import denoisers_of
    from outpace.accel.profile import fingerprint_of, observed_sample
    from outpace.evaluation.environment import environment

    assert outcome.best is not None
    pipe = bench.loaded.pipe
    contender, methods, _ = outcome.best.candidate.payload
    found = denoisers_of(pipe)
    return Profile(
        methods=methods,
        steps=contender.steps,
        target=tuple(map(str, outcome.certificate.target.clauses)),
        fingerprint=fingerprint_of(pipe, found),
        sample=observed_sample(found[0][1], lambda: bench.run([outcome.requests[0]], 2)),
        call={k: v for k, v in settings.items() if k != "steps" and v is not None},
        pipeline=bench.loaded.source.name,
        label=outcome.best.candidate.label,
        certified=outcome.certificate.chosen is not None,
        bound=outcome.bound(),
        calibration=outcome.calibration() | {"plain_steps": bench.steps},
        versions=environment(pipe.device.type),
        command=command,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def show(outcome: Outcome, path: Path | None, pipeline: str, as_json: bool) -> None:
    """What was found, what is promised, how presets and fewer steps stand, and where the profile is."""
    if as_json:
        told = {
            "profile": str(path) if path else None,
            "certified": outcome.certificate.chosen is not None,
            "settings": outcome.settings(),
            "bound": outcome.bound(),
            "calibration": outcome.calibration(),
            "rivals": outcome.rivals.as_dicts(),
            "verdict": outcome.verdict(),
        }
        click.echo(json.dumps(told, indent=2))
        return
    for line in outcome.lines():
        click.echo(line)
    if path is not None:
        click.echo(f"Profile: {path}  (use it: outpace generate {pipeline} --profile {path} ...)")
