"""results.md: the tables for a README, a change description or a terminal."""

from __future__ import annotations

from typing import Any

from .tables import cell_table, contender_table, margin_table
from .verdict import reference_words, span, verdict


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
    for reference in study["references"]:
        lines += cells_in_markdown(results, reference)
    lines += contenders_in_markdown(results)
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


def contenders_in_markdown(results: dict[str, Any]) -> list[str]:
    """One line a contender."""
    table = contender_table(results)
    heads = ["contender", "steps", "blocks", "speed-up", "time"]
    for reference in table["references"]:
        for name in table["metrics"]:
            heads.append(f"{results['metrics'][name]['label']} vs {reference}")
    heads += table["checks"]
    lines = ["## Every contender", "", "| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for c in table["rows"]:
        if c["error"]:
            lines.append(f"| {c['label']} | did not run: {c['error'].replace('|', '/')} |" + " |" * (len(heads) - 2))
            continue
        cells = [c["label"], str(c["steps"]), f"{c['blocks']:.0f}"]
        cells.append(f"{c['speedup']['value']:.2f}x" if c["speedup"] else "")
        cells.append(f"{c['time']['wall']['value']:.2f}x" if c["time"] else "")
        for reference in table["references"]:
            for name in table["metrics"]:
                value = c["metrics"].get(reference, {}).get(name)
                cells.append(f"{value['value']:.{results['metrics'][name]['digits']}f}" if value else "")
        cells += [f"{c['checks'][key]['value']:.2f}" if key in c["checks"] else "" for key in table["checks"]]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]
