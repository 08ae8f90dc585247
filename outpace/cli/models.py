"""`outpace models`: the companion models: list them, read their cards, check what holds exactly, try their claims."""

from __future__ import annotations

import json
import textwrap
import time
from typing import Any

import click

from outpace.cli.options.numbers import COUNT
from outpace.cli.terminal import show_traceback_option

EPILOG = """\b
Examples:
  outpace models list
  outpace models show gam
  outpace models check --all
  outpace models bench gam
"""


@click.group(epilog=EPILOG, short_help="Companion models: list, show, check, bench.")
def models() -> None:
    """Models of papers that are not about diffusion, on the same kernels: cards, exactness checks, trials of claims."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def list_models(as_json: bool) -> None:
    """List the models with what was tried of each paper's claim."""
    from outpace.cli.cards import read_cards, verdict

    rows = {name: {**card, "claim": verdict(name)} for name, card in read_cards().items()}
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(map(len, rows), default=0)
    for name, row in rows.items():
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {row['summary']}")
        click.echo(f"{' ' * width}  {row['source']}; claim {row['claim']}")


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def show(name: str, as_json: bool) -> None:
    """Print NAME's card: the paper, what is implemented, sizes, checks, the claim and what came of it, limits."""
    from outpace.models import MODELS, checks_of, trial_of
    from outpace.models.trials.trial import in_words, read_results

    model, results = MODELS[name], read_results(name)
    untried = f"not yet: outpace models bench {name}" if trial_of(name) else "no trial is written"
    card: dict[str, Any] = {
        "title": model.title,
        "source": model.source,
        "summary": model.summary,
        "implemented": list(model.done),
        "not implemented": list(model.left_out),
        "sizes": [f"{size}: {entry.parameters:,} parameters (the paper: {entry.said})"
                  for size, entry in model.sizes.items()],
        "holds exactly": [f"{check.about}{_bound(check.at_most)}" for check in checks_of(name)],
        "claim": model.claim,
        "tried here": in_words(results) if results else untried,
        "limits": list(model.limits),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps({**card, "results": results}, indent=2))
        return
    for key, value in card.items():
        lines = value if isinstance(value, list) else [value]
        if lines:
            click.secho(key, bold=True)
        for line in lines:
            click.echo(textwrap.fill(line, 110, initial_indent="  ", subsequent_indent="    "))


@models.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Check every model.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def check(name: str | None, every: bool, as_json: bool) -> None:
    """Run what holds exactly for NAME, or for --all, on a CPU in seconds; exit 1 where something does not hold."""
    from outpace.models import MODELS, checks_of

    if (name is None) != every:
        raise click.UsageError("give the NAME of a model, or --all")
    found: dict[str, list[dict[str, Any]]] = {}
    for model in MODELS if name is None else [name]:
        found[model] = []
        if not as_json:
            click.secho(model, bold=True)
        for one in checks_of(model):
            started = time.process_time()
            error, held = one.run()
            seconds = time.process_time() - started
            found[model].append(
                {"about": one.about, "error": error, "at_most": one.at_most, "held": held, "seconds": seconds}
            )
            if not as_json:
                mark = "ok" if held else "NO"
                click.echo(f"  {mark}  {one.about}: {error:.1e}{_bound(one.at_most)}, {seconds:.1f} s")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    missed = sum(not one["held"] for checks in found.values() for one in checks)
    count = sum(map(len, found.values()))
    if not as_json:
        click.echo(f"{count - missed} of {count} checks hold")
    if missed:
        raise SystemExit(1)


@models.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Of every model.")
@show_traceback_option
def remember(name: str | None, every: bool) -> None:
    """Store what NAME gives now as what its check holds it to, and print what changed. For who changes a model."""
    from outpace.models import MODELS
    from outpace.models.remember import remember as store

    if (name is None) != every:
        raise click.UsageError("give the NAME of a model, or --all")
    for model in MODELS if name is None else [name]:
        for line in store(model) or ["nothing changed"]:
            click.echo(f"{model}: {line}")


@models.command()
@click.argument("name")
@click.option(
    "--seeds",
    type=COUNT,
    default=5,
    show_default=True,
    help="Runs of every arm; fewer than 5 show nothing.",
)
@click.option("--more", is_flag=True, help="Keep the seeds that are on the card and run those that are missing.")
@click.option("--save", is_flag=True, help="Put the result on the card: models/trials/results/NAME.json.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def bench(name: str, seeds: int, more: bool, save: bool, as_json: bool) -> None:
    """Try the claim of NAME's paper in small, minutes on one core, and say whether it showed."""
    from outpace.errors import InputError
    from outpace.models import trial_of
    from outpace.models.trials.trial import in_words, read_results, run_trial, save_results

    trial = trial_of(name)
    if save:
        check_checkout()
    if trial is None:
        raise InputError(f"no trial of {name}'s claim is written yet; 'outpace models check {name}' runs its checks")
    if not as_json:
        click.echo(f"{trial.task}")
    known = read_results(name) if more else None
    results = run_trial(trial, seeds=seeds, known=known, say=lambda line: None if as_json else click.echo(f"  {line}"))
    results["command"] = f"outpace models bench {name} --seeds {seeds} --save"
    if save:
        save_results(name, results)
    click.echo(json.dumps(results, indent=2) if as_json else in_words(results))


def check_checkout() -> None:
    """Raises: InputError in an installation, whose cards are everybody's: results are saved in a checkout only."""
    from outpace.cli.cards import home
    from outpace.errors import InputError

    if not (home().parent / "pyproject.toml").is_file():
        raise InputError(
            f"--save writes the cards that are shipped, and {home()} is an installation; run it in a checkout of "
            "outpace, or take the results with --json"
        )


def _bound(at_most: float) -> str:
    return f" (at most {at_most:.0e})" if at_most else " (exactly)"
