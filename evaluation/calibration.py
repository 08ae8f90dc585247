"""How several classifiers fare on the same pictures, clean and made worse: what a calibration report is made of.

Plain data: {"kind": "calibration", "ways": {name: label}, "corruptions": [name], "seeds": [int], "cells": {corruption:
{way: {measure: [a value a seed]}}}, "bins": {way: [[share, confidence, accuracy]]}, ...}.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import MeasurementError
from .environment import environment
from .metrics.classification import CLASSIFICATION, calibration_bins

KIND = "calibration"
CLEAN = "clean"
"""The corruption that is none; means over corruptions leave it out."""

Probabilities = dict[str, dict[str, np.ndarray]]
"""Corruption to way to probabilities [R, C], of one seed."""


def calibration_results(
    runs: Mapping[int, Probabilities],
    classes_R: np.ndarray,
    ways: Mapping[str, str],
    *,
    title: str,
    command: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Every measure of every way on every corruption, seed by seed, and the bins of all corrupted pictures together.

    Args:
        runs: seed to probabilities.
        ways: name to what a reader calls it; the first is what the others are compared with.

    Raises: MeasurementError where a run lacks a cell, or nothing was run on clean and on corrupted pictures.
    """
    if not runs:
        raise MeasurementError("no seed was run, so there is nothing to report")
    corruptions = list(next(iter(runs.values())))
    worse = [name for name in corruptions if name != CLEAN]
    if CLEAN not in corruptions or not worse:
        raise MeasurementError(
            f"a report takes '{CLEAN}' and at least one corruption; there is {', '.join(corruptions)}"
        )
    for seed, run in runs.items():
        missing = [f"{way} under {name}" for name in corruptions for way in ways if way not in run.get(name, {})]
        if missing:
            raise MeasurementError(f"seed {seed} has no {missing[0]}; every seed needs every cell")
    cells = {
        name: {
            way: {
                measure: [function(run[name][way], classes_R) for run in runs.values()]
                for measure, function in CLASSIFICATION.items()
            }
            for way in ways
        }
        for name in corruptions
    }
    bins = {
        way: calibration_bins(
            np.concatenate([run[name][way] for run in runs.values() for name in worse]),
            np.tile(classes_R, len(runs) * len(worse)),
        )
        for way in ways
    }
    return {
        "kind": KIND,
        "title": title,
        "made": time.strftime("%Y-%m-%d"),
        "command": command,
        "environment": environment(),
        "pictures": len(classes_R),
        "seeds": list(runs),
        "ways": dict(ways),
        "corruptions": corruptions,
        "cells": cells,
        "bins": bins,
        "notes": list(notes),
    }


def mean_over(results: dict[str, Any], way: str, measure: str, where: Callable[[str], bool]) -> float:
    """Mean of a measure over seeds and the corruptions that `where` takes."""
    values = [results["cells"][name][way][measure] for name in results["corruptions"] if where(name)]
    return float(np.mean(values))


def summary(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a way: clean accuracy, and every measure averaged over corruptions, best values marked."""
    rows = []
    for way, label in results["ways"].items():
        row: dict[str, Any] = {"way": way, "label": label}
        row["clean"] = {m: mean_over(results, way, m, lambda name: name == CLEAN) for m in CLASSIFICATION}
        row["corrupted"] = {m: mean_over(results, way, m, lambda name: name != CLEAN) for m in CLASSIFICATION}
        rows.append(row)
    for part in ("clean", "corrupted"):
        for measure in CLASSIFICATION:
            best = (max if measure == "accuracy" else min)(row[part][measure] for row in rows)
            for row in rows:
                row.setdefault("best", set())
                if row[part][measure] == best:
                    row["best"].add((part, measure))
    return rows
