"""report.md: the tables for a README, a change description or a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .attention import figures, sparse_contenders
from .attention_drawings import percent
from .equal import equal_section
from .matrix_markdown import matrix_in_markdown
from .tables import cell_table, contender_table, margin_table, paired_table
from .verdict import counts_work, memory_in_words, reference_words, span, verdict

PAIRED = (
    "Mean difference from the plain pipeline, request by request, with its 95 % bootstrap interval; p of a sign-flip "
    "permutation test of the mean, adjusted after Holm for the contenders of a column. "
    "Better or worse is said where p is below 5 %."
)

DOMINANCE = (
    "Lost: share of our points to which some point of the rival is at least as fast and as good, and better in one; "
    "won: the same of its points to ours. Means are compared as they are, without their intervals."
)


def markdown(results: dict[str, Any]) -> str:
    """The whole study in Markdown; numbers come from `results` alone."""
    pipeline, study = results["pipeline"], results["study"]
    said = verdict(results)
    lines = [
        f"# {pipeline['name']}, {pipeline['steps']} steps: speed against fidelity",
        "",
        " ".join(said["sentences"]),
        "",
        f"{study['samples']} samples; {results['environment'].get('device', '')}; made {results['made']} by",
        "",
        f"    {results['command']}",
        "",
    ]
    if said["losses"]:
        lines += ["Lost (95 % interval of the paired difference below zero):", ""]
        lines += [f"- {loss}" for loss in said["losses"]] + [""]
    if said["gaps"]:
        lines += ["Missing:", ""] + [f"- {gap}" for gap in said["gaps"]] + [""]
    lines += matrix_in_markdown(results)
    for reference in study["references"]:
        lines += cells_in_markdown(results, reference)
        lines += equal_in_markdown(results, reference)
    lines += contenders_in_markdown(results)
    lines += paired_in_markdown(results)
    lines += attention_in_markdown(results)
    return "\n".join(lines).rstrip() + "\n"


def cells_in_markdown(results: dict[str, Any], reference: str) -> list[str]:
    """What every curve reaches at the compared speed-ups, then our margins."""
    metric = results["metrics"][results["study"]["headline"]]
    table = cell_table(results, reference)
    if not table["rows"]:
        return []
    heads = [f"{s:g}x" for s in table["speedups"]]
    lines = [f"## {metric['label']} ({metric['unit']}) against {reference_words(results, reference)}", ""]
    lines += ["| curve | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for row in table["rows"]:
        cells = []
        for cell in row["cells"]:
            text = span(cell["quality"]) if cell["quality"] else ""
            cells.append(f"**{text}**" if cell["best"] else text)
        lines.append(f"| {row['curve']} | " + " | ".join(cells) + " |")
    lines.append("")
    margins = margin_table(results, reference)
    if margins["rows"]:
        lines += [f"Margin in {metric['unit']} (paired, 95 % interval; ▼ behind, = not significant):", ""]
        lines += [
            "| ours | at | over " + " | over ".join(margins["rivals"]) + " |",
            "|---|---:|" + "---:|" * len(margins["rivals"]),
        ]
        marks = {"ahead": "", "behind": " ▼", "even": " ="}
        for row in margins["rows"]:
            cells = [span(m, signed=True) + marks[m["verdict"]] if m else "" for m in row["margins"]]
            lines.append(f"| {row['curve']} | {row['speedup']:g}x | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def equal_in_markdown(results: dict[str, Any], reference: str) -> list[str]:
    """What every curve reaches for the same time and the same picture, then who dominates whom."""
    section = equal_section(results, reference)
    if section is None:
        return []
    metric, words = results["metrics"][results["study"]["headline"]], reference_words(results, reference)
    lines = []
    if section["time"]:
        lines += [
            f"### Equal time: {metric['label']} ({metric['unit']}) against {words} in a part of the plain time",
            "",
        ]
        lines += table_in_markdown(section["time"], "quality", section["time"]["heads"], span)
    if section["fidelity"]:
        levels, compute = section["fidelity"]["levels"], results["study"].get("compute", "blocks")
        heads = [
            f"{level['quality']:.1f} {metric['unit']}, {'time' if clock == 'time' else compute}"
            for clock in section["fidelity"]["clocks"]
            for level in levels
        ]
        lines += [f"### Equal fidelity: speed-up at what fewer steps reach against {words}", ""]
        lines += table_in_markdown(section["fidelity"], "speedup", heads, times)
    if section["dominance"]:
        lines += [f"### Dominance against {words}", ""]
        lines += ["| ours | " + " | ".join(section["dominance"]["rivals"]) + " |"]
        lines += ["|---|" + "---:|" * len(section["dominance"]["rivals"])]
        for row in section["dominance"]["rows"]:
            cells = [f"lost {percent(cell['lost'])}, won {percent(cell['won'])}" for cell in row["cells"]]
            lines.append(f"| {row['curve']} | " + " | ".join(cells) + " |")
        lines += ["", DOMINANCE, ""]
    return lines


def table_in_markdown(
    table: dict[str, Any], key: str, heads: list[str], worded: Callable[[dict[str, Any]], str]
) -> list[str]:
    """Rows of curves with the best of each column in bold, and ▼ where a rival is significantly ahead of ours."""
    lines = ["| curve | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for row in table["rows"]:
        cells = []
        for cell in row["cells"]:
            text = worded(cell[key]) if cell[key] else ""
            cells.append((f"**{text}**" if cell["best"] else text) + (" ▼" if cell["behind"] else ""))
        lines.append(f"| {row['curve']} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def times(speedup: dict[str, Any]) -> str:
    """A speed-up with its range: "2.31x (2.20 to 2.44)"; "≥" where the curve has that quality to its end."""
    return f"{'≥ ' if speedup['open'] else ''}{speedup['value']:.2f}x ({speedup['low']:.2f} to {speedup['high']:.2f})"


def contenders_in_markdown(results: dict[str, Any]) -> list[str]:
    """One line a contender."""
    table = contender_table(results)
    work = counts_work(results)
    heads = ["contender", "steps", "blocks", *(["work"] if work else []), "speed-up", "time"]
    heads += ["memory"] if table["memory"] else []
    for reference in table["references"]:
        for name in table["metrics"]:
            heads.append(f"{results['metrics'][name]['label']} vs {reference}")
    heads += table["checks"]
    lines = ["## Every contender", "", "| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for c in table["rows"]:
        if c["error"]:
            lines.append(f"| {c['label']} | did not run: {c['error'].replace('|', '/')} |" + " |" * (len(heads) - 2))
            continue
        cells = [c["label"], str(c["steps"]), f"{c['blocks']:.0f}"] + ([f"{c['work']:.0f}"] if work else [])
        cells.append(f"{c['speedup']['value']:.2f}x" if c["speedup"] else "")
        cells.append(f"{c['time']['wall']['value']:.2f}x" if c["time"] else "")
        cells += [memory_in_words(c.get("memory"))] if table["memory"] else []
        for reference in table["references"]:
            for name in table["metrics"]:
                value = c["metrics"].get(reference, {}).get(name)
                cells.append(span(value, results["metrics"][name]["digits"]) if value else "")
        cells += [span(c["checks"][key], digits=2) if key in c["checks"] else "" for key in table["checks"]]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def paired_in_markdown(results: dict[str, Any]) -> list[str]:
    """Paired tests against the plain pipeline, one line a contender; nothing where nothing was tested."""
    table = paired_table(results)
    if not table["rows"]:
        return []
    lines = ["## Beside the plain pipeline", "", "| contender | " + " | ".join(table["heads"]) + " |"]
    lines += ["|---|" + "---:|" * len(table["heads"])]
    marks = {True: " better", False: " worse", None: ""}
    for row in table["rows"]:
        cells = [
            f"{span(c, digits=2, signed=True)}, p {c['p_adjusted']:.2g}{marks[c['better']]}" if c else ""
            for c in row["cells"]
        ]
        lines.append(f"| {row['label']} | " + " | ".join(cells) + " |")
    return [*lines, "", PAIRED, ""]


def attention_in_markdown(results: dict[str, Any]) -> list[str]:
    """One line a contender with sparse attention; nothing where there is none."""
    found = [figures(c) for c in sparse_contenders(results)]
    if not found:
        return []
    heads = [
        "sparse attention",
        "blocks kept",
        "mass kept",
        "least",
        "later",
        "least later",
        "work",
        "searches",
        "for drift",
        "drift",
    ]
    heads += ["dense calls", "mass", "sparse", "index", "search time"]
    lines = ["## Attention", "", "| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in found:
        shares = [("density", 0), *((key, 1) for key in ("recall", "least", "later", "least_later")), ("work", 0)]
        cells = [row["label"], *(percent(row[key], digits) if row[key] is not None else "" for key, digits in shares)]
        cells += [f"{row['searches']:.0f}"]
        cells += [f"{row['for_drift']:.0f}", f"{row['drift']:.2g}" if row["drift"] is not None else ""]
        calls = row["calls"]
        cells += [f"{calls.get('dense', 0) + calls.get('fallback', 0):.0f}"]
        cells += [f"{calls.get(kind, 0):.0f}" for kind in ("mass", "sparse")]
        cells += [f"{row['bytes'] / 1e6:.2f} MB", percent(row["overhead"], 1) if row["overhead"] is not None else ""]
        lines.append("| " + " | ".join(cells) + " |")
    said = (
        "Shares of the blocks and of the attention mass that are kept, at the searches and later, in sparse calls on "
        "some of their queries (least: block of queries, and layer); work relative to dense attention, searches "
        "counted; calls of a layer for one request; search time (mass and selection) relative to the dense attention "
        "that the sparse calls replace."
    )
    return [*lines, "", said, ""]
