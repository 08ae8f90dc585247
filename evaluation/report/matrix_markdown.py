"""The composition matrix in report.md."""

from __future__ import annotations

from typing import Any

from .matrix import matrix_section
from .verdict import span

TOLD = (
    "What a part has in a value is its mean effect over every order in which the parts can be added (Shapley value); "
    "the parts sum to the whole, factors multiply to it. In brackets 95 % bootstrap intervals over prompts (times: "
    "over timed pairs), and the part's share."
)


def matrix_in_markdown(results: dict[str, Any]) -> list[str]:
    """The best combination per target, all of them, and what their parts have in it; nothing without a matrix."""
    section = matrix_section(results)
    if section is None:
        return []
    metric = results["metrics"][results["study"]["headline"]]
    lines = ["## Combinations", ""]
    lines += [f"- not combined: {line}" for line in section["idle"]] + ([""] if section["idle"] else [])
    lines += [f"| {metric['label']} to plain, at least | best combination | `--method` | surely kept |"]
    lines += ["|---:|---|---|---:|"]
    for entry in section["best"]:
        kept = "" if entry["low"] is None else f"{entry['low']:.1f} {metric['unit']}"
        method = f"`{entry['method']}`" if entry["method"] else ""
        lines.append(f"| {entry['target']:g} {metric['unit']} | {entry['words']} | {method} | {kept} |")
    heads = [axis["label"] for axis in section["axes"]] + ["speed-up", "time"] + ["memory"] * section["weighed"]
    for reference in section["references"]:
        heads += [f"{m['label']} to {reference}" for _, m in section["metrics"]]
    lines += ["", "| " + " | ".join(heads) + " |", "|---" * len(section["axes"]) + "|"]
    lines[-1] += "---:|" * (len(heads) - len(section["axes"]))
    for row in section["rows"]:
        cells = [choice or "–" for choice in row["choices"]]
        if row["refused"]:
            cells.append(f"refused: {row['refused'].replace('|', '/')}")
            cells += [""] * (len(heads) - len(cells))
        else:
            cells += measured_cells(row, section)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", TOLD, ""]
    for account in section["accounts"]:
        title = f"{account['label']} ({account['unit']})" if account["unit"] else account["label"]
        lines += [f"**{title}**", "", "| combination | " + " | ".join(account["heads"]) + " |"]
        lines += ["|---|" + "---:|" * len(account["heads"])]
        for row in account["rows"]:
            cells = [amount(cell, account["digits"]) for cell in row["cells"]]
            cells += [row["adds"]] if row["adds"] else []
            lines.append("| " + " | ".join([row["label"], *cells]) + " |")
        lines.append("")
    return lines


def measured_cells(row: dict[str, Any], section: dict[str, Any]) -> list[str]:
    """Speed and distances of one combination."""
    cells = [f"{row['speedup']['value']:.2f}x" if row["speedup"] else ""]
    cells.append(f"{row['time']['value']:.2f}x" if row["time"] else "")
    if section["weighed"]:
        ratio = (row["memory"] or {}).get("ratio")
        cells.append(f"{ratio:.2f}x" if ratio else "")
    for reference in section["references"]:
        table = row["metrics"].get(reference) or {}
        cells += [span(table[key], m["digits"]) if table.get(key) else "" for key, m in section["metrics"]]
    return cells


def amount(cell: dict[str, Any] | None, digits: int) -> str:
    """A value with its range, and its share where it has one."""
    if cell is None:
        return ""
    return span(cell, digits) + (f", {cell['share']:.0%}" if cell["share"] is not None else "")
