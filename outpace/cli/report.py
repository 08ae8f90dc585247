"""`outpace report`: the page of a comparison once more, from its results and pictures; nothing is generated."""

from __future__ import annotations

import json
from pathlib import Path

import click

from outpace.cli.terminal import show_traceback_option

EPILOG = """\b
Examples:
  outpace report out/demo
"""


@click.command(epilog=EPILOG, short_help="Write report.html and report.md again from a comparison's folder.")
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def report(folder: str, as_json: bool) -> None:
    """Write report.html and report.md again from DIR, where 'outpace compare --out DIR' left results.json."""
    from outpace.evaluation.report import load_results, render
    from outpace.evaluation.shape import readable_results
    from outpace.files import check_writable

    home = Path(folder).expanduser()
    results = load_results(home)
    home = home.parent if home.is_file() else home
    check_writable(home / "report.html", home / "report.md")
    with readable_results(f"'{home / 'results.json'}'"):
        page = render(results, home)
    click.echo(json.dumps({"report": str(page)}) if as_json else f"Report: {page}")
