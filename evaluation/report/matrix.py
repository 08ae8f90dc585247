"""The composition matrix as rows and sentences, shared by the page, the Markdown file and the terminal."""

from __future__ import annotations

import math
from typing import Any


def matrix_section(results: dict[str, Any]) -> dict[str, Any] | None:
    """All that the section shows, or None where no matrix was run.

    Returns: "axes", those in use; "idle", lines about those that are not; "references" and "metrics", the
        distances; "rows", one a combination; "best", one a target; "accounts", a table for each quantity divided.
    """
    matrix = results.get("matrix")
    if matrix is None:
        return None
    axes = [axis for axis in matrix["axes"] if axis["choices"]]
    study, measured = results["study"], [r for r in matrix["combinations"] if r["refused"] is None]
    metrics = [
        key
        for key in (study["headline"], "latent_l2")
        if any((table or {}).get(key) for row in measured for table in row["metrics"].values())
    ]
    return {
        "axes": axes,
        "idle": [f"{axis['label']}: {axis['reason']}" for axis in matrix["axes"] if axis["reason"]],
        "references": study["references"],
        "metrics": [(key, results["metrics"][key]) for key in metrics],
        "weighed": any(row.get("memory") for row in measured),
        "rows": [row | {"choices": choices_of(row, axes)} for row in matrix["combinations"]],
        "best": [entry | {"words": best_in_words(entry)} for entry in matrix["best"]],
        "accounts": [
            account_table(matrix, name, axes)
            for name in matrix["accounts"]
            if any((row.get("attribution") or {}).get(name) for row in matrix["combinations"])
        ],
    }


def choices_of(row: dict[str, Any], axes: list[dict[str, Any]]) -> list[str]:
    """What a combination has on each axis; empty where it goes without."""
    return [axis["choices"].get(row["parts"].get(axis["name"], ""), "") for axis in axes]


def account_table(matrix: dict[str, Any], name: str, axes: list[dict[str, Any]]) -> dict[str, Any]:
    """One quantity, divided among the parts of every combination of two and more.

    Returns: {"label", "unit", "heads", "rows": [{"label", "cells": [{"value", "low", "high", "share"} or None]}]};
        values of factors are factors.
    """
    account = matrix["accounts"][name]
    how = "multiplied" if account["factor"] else "added"
    heads = ["in all", *(axis["label"] for axis in axes), f"parts alone, {how}"]
    heads += ["as independent errors", "the parts' errors come to"] if account["error"] else []
    rows = []
    for row in matrix["combinations"]:
        entry = (row.get("attribution") or {}).get(name)
        if not entry:
            continue
        shares = entry["shares"] or {}
        cells: list[dict[str, Any] | None] = [shown(entry["total"], account)]
        for axis in axes:
            part, share = entry["parts"].get(axis["name"]), shares.get(axis["name"])
            cells.append(shown(part, account) | {"share": share and share["value"]} if part else None)
        cells.append(shown(entry["sum"], account))
        cells += [shown(entry["quadrature"], account)] if account["error"] else []
        rows.append({"label": row["label"], "cells": cells, "adds": entry.get("adds")})
    return {"name": name, "heads": heads, "rows": rows, **account}


def shown(entry: dict[str, Any], account: dict[str, Any]) -> dict[str, Any]:
    """An entry as it is shown: factors instead of their logarithms."""
    told = {key: entry[key] for key in ("value", "low", "high")}
    if account["factor"]:
        told = {key: value if value is None else math.exp(value) for key, value in told.items()}
    return told | {"share": None}


def best_in_words(entry: dict[str, Any]) -> str:
    """The best combination for one target: "gated 0.1 + AdaSpa 0.9, 1.84x by the clock"."""
    clock = "by the clock" if entry["by"] == "time" else "in compute"
    if not entry["parts"]:
        words = "no combination is faster than the plain pipeline"
    else:
        words = f"{entry['label']}, {entry['times']:.2f}x {clock}"
    rival = entry["rival"]
    return words + (f"; faster from outside the matrix: {rival['label']}, {rival['times']:.2f}x" if rival else "")


def matrix_sentences(results: dict[str, Any]) -> list[str]:
    """What the matrix found, in sentences; none where no matrix was run."""
    section = matrix_section(results)
    if section is None:
        return []
    metric = results["metrics"][results["study"]["headline"]]
    measured = [row for row in section["rows"] if row["refused"] is None]
    parts = [f"{axis['label']} ({', '.join(axis['choices'].values())})" for axis in section["axes"]]
    said = [f"{len(measured)} combinations of {', '.join(parts)}, the plain pipeline among them."]
    for entry in section["best"]:
        said.append(f"Best for {metric['label']} >= {entry['target']:g} {metric['unit']}: {entry['words']}.")
    said += [f"Not combined, {line}." for line in section["idle"]]
    return said
