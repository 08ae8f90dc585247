"""`outpace pocket`: the small trained pipelines that come with outpace: list them, train them again, check them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from outpace.cli.options.numbers import COUNT, STEPS, FiniteRange
from outpace.cli.options.output import PLACE
from outpace.cli.terminal import show_traceback_option, tell_if_stopped, watched

EPILOG = """\b
Examples:
  outpace pocket list
  outpace pocket check dit --samples 32
  outpace pocket train dit --out my-dit --processes 2
"""


@click.group(epilog=EPILOG, short_help="The small trained pipelines: list, train, check.")
def pocket() -> None:
    """Small but real diffusers pipelines, trained and shipped with outpace, that need no network."""


@pocket.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def list_pockets(as_json: bool) -> None:
    """List the pocket pipelines with an example prompt each."""
    from outpace.pipelines.pocket.recipes import POCKETS

    rows = {
        name: {
            "summary": entry.summary,
            "kind": entry.kind,
            "steps": entry.steps,
            "example": entry.example,
            "bytes": _shipped_bytes(name),
        }
        for name, entry in POCKETS.items()
    }
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(map(len, rows), default=0)
    for name, row in rows.items():
        size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else f"not shipped: outpace pocket train {name}"
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {row['summary']} ({row['kind']}, {size})")
        click.echo(f'{" " * width}  outpace generate {name} --prompt "{row["example"]}"')


@pocket.command()
@click.argument("name")
@click.option("--folder", metavar="FOLDER", help="One made by 'outpace pocket train' [default: the shipped one].")
@click.option("--samples", type=COUNT, default=32, show_default=True, help="Held-out prompts.")
@click.option("--steps", type=STEPS, help="Denoising steps [default: the pocket's].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def check(name: str, folder: str | None, samples: int, steps: int | None, as_json: bool) -> None:
    """Generate NAME's held-out prompts and read off the pictures how many were obeyed; exit 1 below the bar."""
    from outpace.pipelines import check_pocket
    from outpace.pipelines.pocket.sisters import trained

    entry = trained(name)
    result = check_pocket(name, n=samples, steps=steps, folder=folder, progress=watched(as_json))
    accuracy = result["accuracy"]
    below = {key: bar for key, bar in entry.bar.items() if not accuracy.get(key, 0.0) >= bar}
    if as_json:
        click.echo(json.dumps({**result, "bar": dict(entry.bar), "below": sorted(below)}, indent=2, default=str))
    else:
        click.echo(f"{name}: {result['n']} held-out prompts, {result['steps']} steps")
        for key, value in accuracy.items():
            bar = f"  (bar {entry.bar[key]:.2f}{', missed' if key in below else ''})" if key in entry.bar else ""
            click.echo(f"  {key:<12}{value:.3f}{bar}")
    if below:
        raise SystemExit(1)


@pocket.command()
@click.argument("name")
@click.option("--out", type=PLACE, required=True, metavar="FOLDER", help="Where the pipeline and its checkpoints go.")
@click.option(
    "--sister",
    is_flag=True,
    help="Train its sister instead: another seed, depth, width and split of the data, to report on what no setting was "
    "chosen on.",
)
@click.option("--processes", type=COUNT, default=1, show_default=True, help="On a CPU, through gloo.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option(
    "--budget",
    type=FiniteRange(0, 1e4, min_open=True),
    metavar="FACTOR",
    help="Multiplies the recipe's steps; 0.01 is a rehearsal.",
)
@click.option("--restart", is_flag=True, help="Forget checkpoints in FOLDER instead of resuming from them.")
@show_traceback_option
def train(name: str, out: str, sister: bool, processes: int, device: str, budget: float | None, restart: bool) -> None:
    """Train NAME again from nothing. Killed or stopped, the same command goes on where it was."""
    from outpace.pipelines.pocket.recipes import POCKETS
    from outpace.pipelines.pocket.sisters import sister_of

    chosen = sister_of(name) if sister else POCKETS[name]
    from outpace.files import check_writable
    from outpace.pipelines.load import choose_device

    choose_device(device)
    folder = Path(out).expanduser()
    check_writable(folder / "model_index.json", folder / "checkpoints" / "x.pt")
    from outpace.pipelines import train_pocket

    tell_if_stopped(f"Checkpoints are kept in {folder / 'checkpoints'}; the same command goes on from the newest.")
    train_pocket(chosen.name, folder, processes=processes, device=device, resume=not restart, budget=budget)
    example = chosen.prompts(1, "held_out")[0]
    click.echo(f'Trained {chosen.name}. Try it: outpace generate {folder} --prompt "{example}"')


def _shipped_bytes(name: str) -> int:
    from outpace.errors import InputError, UnknownNameError
    from outpace.pipelines.pocket.store import pocket_path

    try:
        folder = pocket_path(name)
    except (InputError, UnknownNameError):
        return 0
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
