"""Writes the tables of README.md, docs/results.md and docs/kernels.md again: `make readme`. With --check, only says if
they are current.

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
PAGE = ROOT / "docs" / "results.md"
MATRIX_PAGE = ROOT / "docs" / "results_matrix.md"
KERNEL_PAGE = ROOT / "docs" / "kernels.md"
RESULTS_INTRO = (
    "PSNR in dB, higher is better, at two, two and a half and three times fewer computed transformer blocks (where "
    "attention is sparse, less computed work, from 1.25 times), against the plain pipeline at the same steps and "
    "against the converged solution; bold is best. Ours with default settings "
    "and a varied threshold; of the rivals the best of each kind at each place; empty where a curve does not reach. "
    "Every curve, with intervals, margins, times and what was lost: [docs/results.md](docs/results.md)."
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
    """What every committed comparison found in brief, with its hardware, in the order of the file names."""
    found = comparisons(folder)
    if not found:
        return "No comparison has been committed yet; `make bench` makes them."
    return "\n\n".join([RESULTS_INTRO, *(in_brief(data) for data in found)])


def comparisons(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The committed results of `outpace compare`, those of `--matrix` left out."""
    return [data for data in every_result(folder) if "matrix" not in data]


def every_result(folder: Path) -> list[dict[str, Any]]:
    """The committed results of `outpace compare`, in the order of the file names."""
    every = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.json"))]
    return [data for data in every if isinstance(data, dict) and data.get("schema") == 1 and "study" in data]


def conditions(data: dict[str, Any]) -> str:
    """How many prompts on which machine with which versions, when."""
    environment = data["environment"]
    parts = [f"{data['study']['samples']} prompts", environment.get("device", "")]
    if "torch threads" in environment:
        parts.append(f"{environment['torch threads']} torch thread(s)")
    parts += [f"{package} {environment[package]}" for package in ("torch", "diffusers") if package in environment]
    return ", ".join([*filter(None, parts), data["made"]])


def in_brief(data: dict[str, Any]) -> str:
    """One comparison as one table: kinds of contenders by reference and speed-up."""
    references = data["study"]["references"]
    words = {data["study"]["plain"]: "to plain", data["study"]["converged"]: "to converged"}
    columns = [(reference, speedup) for reference in references for speedup in data["speedups"]]
    table = {place: best_of_kinds(data, *place) for place in columns}
    heads = [f"{words[reference]}, {speedup:g}x" for reference, speedup in columns]
    lines = [f"**{data['pipeline']['name']}, {data['pipeline']['steps']} steps** ({conditions(data)})", ""]
    lines += ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for kind, described in data["kinds"].items():
        if not any(kind in table[place] for place in columns):
            continue
        cells = []
        for place in columns:
            value = table[place].get(kind)
            text = "" if value is None else f"{value:.1f}"
            cells.append(f"**{text}**" if text and value == max(table[place].values()) else text)
        label = {"peer": "caches of diffusers and cache-dit"}.get(kind, described["label"])
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def best_of_kinds(data: dict[str, Any], reference: str, speedup: float) -> dict[str, float]:
    """Quality at one speed-up by kind: the first curve of our kinds (the defaults), the best curve of the rivals'."""
    found: dict[str, float] = {}
    seen: set[str] = set()
    for cell in data["cells"][reference]:
        kind = cell["kind"]
        if cell["speedup"] != speedup or (data["kinds"][kind]["ours"] and kind in seen):
            continue
        seen.add(kind)
        if cell["quality"]:
            found[kind] = max(found.get(kind, float("-inf")), cell["quality"]["value"])
    return found


def whole_page(folder: Path = RESULTS) -> str:
    """docs/results.md: every committed comparison in full."""
    from outpace.evaluation.report.markdown import markdown

    intro = (
        "# Results in full\n\nWritten by `make readme` from benchmarks/results; how to read them: "
        "[honest numbers](honest_numbers.md)."
    )
    sections = [
        re.sub(r"^#", "##", f"{markdown(data).rstrip()}\n\n{conditions(data)}.", flags=re.MULTILINE)
        for data in comparisons(folder)
    ]
    return "\n\n".join([intro, *sections]) + "\n"


def matrix_page(folder: Path = RESULTS) -> str:
    """docs/results_matrix.md: every committed composition matrix."""
    from outpace.evaluation.report.matrix_markdown import matrix_in_markdown

    intro = (
        "# Combinations of parts, measured\n\nWritten by `make readme` from benchmarks/results, which "
        "`python benchmarks/run.py --matrix` makes; how to read it: [the matrix](matrix.md)."
    )
    sections = []
    for data in every_result(folder):
        if "matrix" in data:
            title = f"## {data['pipeline']['name']}, {data['pipeline']['steps']} steps"
            found = "\n".join(matrix_in_markdown(data)[2:]).rstrip()  # its heading gives way to the pipeline's
            sections.append(f"{title}\n\n{conditions(data)}, made by\n\n    {data['command']}\n\n{found}")
    return "\n\n".join([intro, *(sections or ["None has been committed yet."])]) + "\n"


TABLES: dict[str, Callable[[], str]] = {"families": families, "pockets": pockets, "results": results}


def kernel_page() -> str:
    """docs/kernels.md: who uses which kernel."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from kernel_table import page
    finally:
        sys.path.pop(0)
    return page()


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
    made = {readme: rewritten(readme.read_text(encoding="utf-8")), PAGE: whole_page(), MATRIX_PAGE: matrix_page()}
    made[KERNEL_PAGE] = kernel_page()
    for path, text in made.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            if "--check" in sys.argv:
                raise SystemExit(
                    f"{path.name} is behind the sources, registries or benchmarks/results; run `make readme`"
                )
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
