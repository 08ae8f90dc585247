"""`outpace diff`: what changed from one comparison to another, and whether something got worse."""

from __future__ import annotations

import json

import click

from outpace.cli.terminal import show_traceback_option

EPILOG = """\b
Examples:
  outpace diff out/before out/after
  outpace diff out/before/results.json out/after/results.json --fail-on-worse

\b
A change is significant where a sign-flip test of the requests that both have says so at 5 %, adjusted after Holm for
the number of contenders.
"""


@click.command(epilog=EPILOG, short_help="Say what changed between two comparisons.")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--fail-on-worse", is_flag=True, help="Exit 1 where something got significantly worse, or broke.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@show_traceback_option
def diff(before: str, after: str, fail_on_worse: bool, as_json: bool) -> None:
    """Compare two folders of 'outpace compare' (or their results.json): speed-up, fidelity, time and accuracy.

    Says first what else differs: pipeline, steps, requests, versions, hardware. Requests with the same prompt and seed
    are compared with each other.
    """
    from pathlib import Path

    from outpace.evaluation.diff import diff as compare
    from outpace.evaluation.diff import table
    from outpace.evaluation.report import load_results
    from outpace.evaluation.shape import readable_results

    with readable_results("one of the two results.json"):
        found = compare(*(load_results(Path(place).expanduser()) for place in (before, after)))
        told = json.dumps(found.to_dict(), indent=2) if as_json else table(found)
    click.echo(told)
    if fail_on_worse and found.worse:
        raise SystemExit(1)
