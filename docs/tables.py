"""Writes the tables of README.md and of the pages in docs again: `make readme`. With --check, only says if they are
current.

Families come from the registry, results from the committed files in benchmarks/results; numbers are never typed.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
INDEX = ROOT / "docs" / "results.md"
PAGES = ROOT / "docs" / "results"
FAMILY_PAGE = ROOT / "docs" / "families.md"
METHOD_PAGE = ROOT / "docs" / "methods.md"
POCKET_PAGE = ROOT / "docs" / "pockets.md"
PHOTO_PAGE = ROOT / "docs" / "photo.md"
SCHEDULING_PAGE = ROOT / "docs" / "scheduling.md"
MATRIX_PAGE = ROOT / "docs" / "results_matrix.md"
KERNEL_PAGE = ROOT / "docs" / "kernels.md"
REUSE_PAGE = ROOT / "docs" / "exact_reuse.md"
INDEX_INTRO = (
    "PSNR in dB, higher is better, at some times fewer computed transformer blocks (where attention is sparse, less "
    "computed work, from 1.25 times), against the plain pipeline at the same steps and against the converged solution; "
    "bold is best. Ours with default settings and a varied threshold; of the rivals the best of each kind at each "
    "place; empty where a curve does not reach. How to read them: [honest numbers](honest_numbers.md). Every curve, "
    "with intervals, margins, times and what was lost, has a page of its own:"
)


def families() -> str:
    """The supported model families and the transformers each covers, in one paragraph."""
    from outpace.accel import FAMILIES

    said = [f"{name} ({', '.join(f'`{t}`' for t in family.transformers)})" for name, family in sorted(FAMILIES.items())]
    return "; ".join(said) + "."


def family_page() -> str:
    """docs/families.md: what was tried on which transformer."""
    return beside("support").page()


def methods() -> str:
    """The methods by the name of their class, in one sentence."""
    from outpace.accel import METHODS

    return "Methods: " + ", ".join(f"`{method.__name__}`" for _, method in sorted(METHODS.items())) + "."


def method_page() -> str:
    """docs/methods.md: what each method does, and the presets, from the registries."""
    from outpace.accel import METHODS, PRESETS

    rows = []
    for name, method in sorted(METHODS.items()):
        said = (method.__doc__ or "").strip().split("\n\n")[0]
        rows.append(f"| `{method.__name__}` (`{name}`) | {' '.join(said.split())} |")
    lines = [
        "# Methods and presets",
        "",
        "Written by `make readme` from the registries; `outpace methods` lists every setting with its range "
        "and its price.",
        "",
        "| method | what it does |",
        "| --- | --- |",
        *rows,
        "",
        "| preset | what to expect |",
        "| --- | --- |",
        *(f"| `{name}` | {preset.summary} |" for name, preset in PRESETS.items()),
    ]
    return "\n".join(lines) + "\n"


def reuse() -> str:
    """What ExactReuse saves on the published models: the counts that are stored for `outpace flops`."""
    from outpace.accel.estimate.counted import FILE

    lines = ["| model | of a call | a call |", "| --- | ---: | ---: |"]
    for name, entry in json.loads(FILE.read_text(encoding="utf-8"))["accounts"].items():
        told = entry["account"]
        if told["constant_flops"]:
            share = told["constant_flops"] / told["flops_per_call"]
            amount = f"{told['constant_flops'] / 1e9:.3g} GFLOP"
            lines.append(f"| {name} | {100 * share:.2f} % | {amount} |")
    return "\n".join(lines)


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


def pocket_page() -> str:
    """docs/pockets.md: the pockets, and the sisters that figures are reported on too."""
    from outpace.pipelines.pocket.sisters import SISTER_FACTS, SISTERS

    said = (
        "# Pockets\n\nWritten by `make readme`. Small but real pipelines, trained by the code in this repository and "
        "shipped with it, so that everything here can be tried, tested and measured without a download; "
        "`outpace pocket train NAME --out FOLDER` makes each again from nothing."
    )
    facts = json.loads(SISTER_FACTS.read_text(encoding="utf-8")) if SISTER_FACTS.is_file() else {}
    rows = [
        f"| `outpace pocket train {name} --sister` | {recipe(sister)} | {in_card(facts.get(sister.name))} |"
        for name, sister in SISTERS.items()
    ]
    sisters = (
        "## Sisters\n\nSettings were chosen on the pockets, so figures taken there flatter them. A sister is trained "
        "by the same code from other seeds, at another depth and width, on another split of the data, and nobody looks "
        "at it while choosing. It is not shipped; `outpace compare FOLDER` takes it like any pipeline."
    )
    table = "\n".join(["| made by | how it differs | held-out prompts obeyed | weights |", "| --- " * 4 + "|", *rows])
    return "\n\n".join([said, pockets(), sisters, table]) + "\n"


def in_card(facts: dict[str, Any] | None) -> str:
    """What the card of a sister says that figures were taken with, as two cells."""
    if facts is None:
        return "no figures were taken with one yet | "
    obeyed = ", ".join(f"{key} {value:.2f}" for key, value in facts["check"]["accuracy"].items())
    return f"{obeyed} (n = {facts['check']['n']}) | `{facts['weights']}`"


def recipe(sister: Any) -> str:
    """How a sister differs, as the docstring of its recipe says it."""
    from outpace.pipelines.pocket import sisters

    return getattr(sisters, f"{sister.name.removesuffix('-sister')}_recipe").__doc__.strip().rstrip(".")


def results(folder: Path = RESULTS) -> str:
    """One row a committed comparison: ours beside the best rival, sisters first."""
    return beside("standing").table(latest(folder)) or "No comparison has been committed yet; `make bench` makes them."


def comparisons(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The committed results of `outpace compare`, those of `--matrix` left out.

    Each holds under "later" what was measured of a few of its contenders since, in the order of the files, and under
    "in_batches" those whose times are of calls for several pictures.
    """
    every = [data for data in every_result(folder) if "matrix" not in data]
    batched = [data for data in every if data["study"].get("timing_batch", 1) > 1]
    later = [data for data in every if data.get("again") and data not in batched]
    return [
        {
            **data,
            "later": [again for again in later if key_of(again) == key_of(data)],
            "in_batches": [timed for timed in batched if key_of(timed) == key_of(data)],
        }
        for data in every
        if not data.get("again") and data not in batched
    ]


def key_of(data: dict[str, Any]) -> tuple[str, int]:
    return data["pipeline"]["name"], data["pipeline"]["steps"]


def as_of_late(data: dict[str, Any]) -> dict[str, Any]:
    """A comparison in which contenders that were measured again stand as they were found last.

    New ones come first: what was not there when all were compared may be what is on by default since.
    """
    fresh = {c["name"]: c for again in data["later"] for c in again["contenders"]}
    kept = [fresh.pop(c["name"], c) for c in data["contenders"]]
    kinds = {name: kind for one in (data, *data["later"]) for name, kind in one["kinds"].items()}
    return {**data, "kinds": kinds, "contenders": [*fresh.values(), *kept]}


def latest(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The committed comparisons, each as of late."""
    return [as_of_late(data) for data in comparisons(folder)]


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
    since = [
        f"{beside('standing').curves_in(again)} measured again for the README's table, {again['made']}"
        for again in data.get("later", ())
    ]
    return "; ".join([", ".join([*filter(None, parts), data["made"]]), *since])


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


def page_name(data: dict[str, Any]) -> str:
    """The file in docs/results that a comparison has."""
    return f"{data['pipeline']['name']}.md"


def index_page(folder: Path = RESULTS) -> str:
    """docs/results.md: every committed comparison in brief, with where it is told in full."""
    found = comparisons(folder)
    names = list(dict.fromkeys(data["pipeline"]["name"] for data in found))
    links = " · ".join(f"[{name}](results/{name}.md)" for name in names)
    intro = f"# Results\n\nWritten by `make readme` from benchmarks/results. {INDEX_INTRO} {links}."
    return "\n\n".join([intro, *(in_brief(data) for data in found)]) + "\n"


def full_pages(folder: Path = RESULTS) -> dict[str, str]:
    """docs/results/NAME.md by file name: every committed comparison of a pipeline in full."""
    from outpace.evaluation.report.markdown import markdown

    pages: dict[str, list[str]] = {}
    for data in comparisons(folder):
        section = f"{markdown(data).rstrip()}\n\n{conditions(data)}."
        pages.setdefault(page_name(data), []).append(re.sub(r"^#", "##", section, flags=re.MULTILINE))
    intro = (
        "# {name}: results in full\n\nWritten by `make readme` from benchmarks/results; how to read them: "
        "[honest numbers](../honest_numbers.md)."
    )
    return {
        name: "\n\n".join([intro.format(name=name.removesuffix(".md")), *sections]) + "\n"
        for name, sections in pages.items()
    }


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


TABLES: dict[str, Callable[[], str]] = {"families": families, "methods": methods, "results": results}


def beside(name: str) -> Any:
    """A module that lies beside this one."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def kernel_page() -> str:
    """docs/kernels.md: who uses which kernel."""
    return beside("kernel_table").page()


def photo_page() -> str:
    """docs/photo.md with the table of how hard the pocket is."""
    written = PHOTO_PAGE.read_text(encoding="utf-8")
    return rewritten(
        written,
        {
            "difficulty": lambda: beside("difficulty").table(latest()),
            "rivals": lambda: beside("difficulty").rivals(latest()),
        },
    )


def scheduling_page() -> str:
    """docs/scheduling.md with what calibration adds, and with a second-order solver towards the converged picture."""
    written = SCHEDULING_PAGE.read_text(encoding="utf-8")
    calibrated = beside("standing").calibration_table
    return rewritten(written, {"calibrated": lambda: calibrated(latest()), "converged": converged_table})


def converged_table(speedups: tuple[float, ...] = (2.0, 2.5, 3.0, 4.0)) -> str:
    """A forecast on a second-order solver beside fewer steps of any solver, PSNR to the converged picture."""
    lines = [
        "| on a second-order solver; fewer steps | " + " | ".join(f"{at:g}x" for at in speedups) + " |",
        "| --- |" + " ---: |" * len(speedups),
    ]
    ahead: dict[float, list[float]] = {at: [] for at in speedups}
    for data in comparisons(RESULTS):
        reference = data["study"]["converged"]
        if "scheduled+solver" not in data["kinds"] or reference not in data["study"]["references"]:
            continue
        cells = []
        for at in speedups:
            found = best_of_kinds(data, reference, at)
            ours, fewer = found.get("scheduled+solver"), max(found[k] for k in ("solver", "fewer-steps") if k in found)
            cells.append(f"{'-' if ours is None else f'{ours:.1f}'}; {fewer:.1f}")
            ahead[at] += [] if ours is None else [ours - fewer]
        lines.append(f"| {data['pipeline']['name']}, {data['pipeline']['steps']} steps | {' | '.join(cells)} |")
    said = ", ".join(
        f"{sum(leads) / len(leads):.1f} dB at {at:g}x (least {min(leads):.1f})" for at, leads in ahead.items() if leads
    )
    return "\n".join([*lines, "", f"Ahead on average by {said}."])


def rewritten(text: str, tables: dict[str, Callable[[], str]] = TABLES) -> str:
    """`text` with what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` made anew."""
    for name, table in tables.items():
        between = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not between.search(text):
            raise SystemExit(f"the page has no '<!-- {name}:begin -->' and '<!-- {name}:end -->'")
        text = between.sub(lambda found, table=table: f"{found[1]}{table()}\n{found[2]}", text)
    return text


def generated_pages() -> dict[Path, str]:
    """Every page of docs that is written from registries and committed results, with its text."""
    made = {INDEX: index_page(), MATRIX_PAGE: matrix_page(), KERNEL_PAGE: kernel_page()}
    made |= {
        FAMILY_PAGE: family_page(),
        METHOD_PAGE: method_page(),
        POCKET_PAGE: pocket_page(),
        PHOTO_PAGE: photo_page(),
        SCHEDULING_PAGE: scheduling_page(),
    }
    made[REUSE_PAGE] = rewritten(REUSE_PAGE.read_text(encoding="utf-8"), {"reuse": reuse})
    return made | {PAGES / name: text for name, text in full_pages().items()}


def main() -> None:
    readme = ROOT / "README.md"
    made = {readme: rewritten(readme.read_text(encoding="utf-8")), **generated_pages()}
    for old in set(PAGES.glob("*.md")) - set(made):
        if "--check" in sys.argv:
            raise SystemExit(f"{old.name} in docs/results belongs to no committed comparison; run `make readme`")
        old.unlink()
    PAGES.mkdir(exist_ok=True)
    for path, text in made.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            if "--check" in sys.argv:
                raise SystemExit(
                    f"{path.name} is behind the sources, registries or benchmarks/results; run `make readme`"
                )
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
