"""Writes the generated tables of README.md again: `make readme`. With --check, only says whether they are current.

Families come from the registry, results from the committed files in benchmarks/results; numbers are never typed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
RESULTS_INTRO = (
    "Quality is PSNR in dB, higher is better, bold is best in its column; the range is a 95 % interval over prompts. "
    "The columns are speed-ups counted in computed transformer blocks."
)


def families() -> str:
    """The supported model families and the transformers each covers."""
    from outpace.accel import FAMILIES

    rows = [f"| {name} | {', '.join(f'`{t}`' for t in family.transformers)} |" for name, family in FAMILIES.items()]
    return "\n".join(["| family | diffusers transformers |", "| --- | --- |", *rows])


def pockets() -> str:
    """The pocket pipelines that are shipped, with what their cards measured."""
    from outpace.pipelines.pocket.recipes import POCKETS
    from outpace.pipelines.pocket.store import WEIGHTS

    lines = ["| name | what it makes | held-out prompts obeyed |", "| --- | --- | --- |"]
    for name, pocket in POCKETS.items():
        card = WEIGHTS / name / "card.json"
        if card.is_file():
            check = json.loads(card.read_text(encoding="utf-8"))["check"]
            read = ", ".join(f"{key} {value:.2f}" for key, value in check["accuracy"].items())
            lines.append(f"| `{name}` | {pocket.summary} | {read} (n = {check['n']}) |")
    return "\n".join(lines)


def results(folder: Path = RESULTS) -> str:
    """What every committed comparison found, with its hardware, in the order of the file names."""
    found = [data for path in sorted(folder.rglob("*.json")) if is_comparison(data := json.loads(path.read_text()))]
    if not found:
        return "No comparison has been committed yet; `make bench` makes them."
    return "\n\n".join([RESULTS_INTRO, *(one_result(data) for data in found)])


def is_comparison(data: Any) -> bool:
    return isinstance(data, dict) and data.get("schema") == 1 and "cells" in data


def one_result(data: dict[str, Any]) -> str:
    """One comparison: what was run, on what, and one table a reference."""
    from outpace.evaluation.report.markdown import cells_in_markdown
    from outpace.evaluation.report.verdict import verdict

    environment, study, pipeline = data["environment"], data["study"], data["pipeline"]
    machine = ", ".join(
        part
        for part in (
            environment.get("device"),
            f"{environment['torch threads']} torch thread(s)" if "torch threads" in environment else None,
            f"torch {environment['torch']}" if "torch" in environment else None,
            f"diffusers {environment['diffusers']}" if "diffusers" in environment else None,
        )
        if part
    )
    lines = [
        f"### {pipeline['name']}, {pipeline['steps']} steps",
        "",
        f"{study['samples']} prompts; {machine}; {data['made']}; made by `{data['command']}`.",
        "",
        *verdict(data)["sentences"],
        "",
    ]
    for reference in study["references"]:
        lines += [re.sub(r"^#+ ", "#### ", line) for line in cells_in_markdown(data, reference)]
    return "\n".join(lines).rstrip()


TABLES: dict[str, Callable[[], str]] = {"families": families, "pockets": pockets, "results": results}


def rewritten(text: str, tables: dict[str, Callable[[], str]] = TABLES) -> str:
    """`text` with what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` made anew."""
    for name, table in tables.items():
        between = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not between.search(text):
            raise SystemExit(f"README.md has no '<!-- {name}:begin -->' and '<!-- {name}:end -->'")
        text = between.sub(lambda found, table=table: f"{found[1]}{table()}\n{found[2]}", text)
    return text


def main() -> None:
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = rewritten(old)
    if "--check" in sys.argv and old != new:
        raise SystemExit("README.md is behind the registries or benchmarks/results; run `make readme`")
    if old != new:
        readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
