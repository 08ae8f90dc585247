"""Measures of classifiers against torchmetrics and scikit-learn, and the report that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from outpace.errors import MeasurementError
from outpace.evaluation.calibration import calibration_results, summary
from outpace.evaluation.metrics.classification import (
    accuracy,
    brier,
    calibration_bins,
    calibration_error,
    negative_log_likelihood,
)
from outpace.evaluation.report import load_results, render


def guesses(rows: int = 400, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.4), size=rows), rng.integers(0, classes, size=rows)


def test_measures_are_those_of_other_libraries() -> None:
    p, y = guesses()
    assert accuracy(p, y) == accuracy_score(y, p.argmax(1))
    assert negative_log_likelihood(p, y) == pytest.approx(log_loss(y, p, labels=range(5)))
    theirs = multiclass_calibration_error(torch.tensor(p), torch.tensor(y), num_classes=5, n_bins=10, norm="l1")
    assert calibration_error(p, y) == pytest.approx(float(theirs), abs=1e-6)
    assert brier(p, y) == pytest.approx(
        np.mean([((row - np.eye(5)[c]) ** 2).sum() for row, c in zip(p, y, strict=True)])
    )


def test_the_ends_of_every_measure() -> None:
    right, wrong = np.eye(3)[[0, 1, 2]], np.eye(3)[[1, 2, 0]]
    y = np.arange(3)
    assert [f(right, y) for f in (accuracy, calibration_error, negative_log_likelihood, brier)] == [1, 0, 0, 0]
    assert [f(wrong, y) for f in (accuracy, calibration_error, brier)] == [0, 1, 2]
    assert negative_log_likelihood(wrong, y) == pytest.approx(-np.log(1e-12))


def test_honest_guesses_have_little_calibration_error_and_bins_share_all_pictures() -> None:
    p, _ = guesses(20_000)
    rng = np.random.default_rng(1)
    y = np.array([rng.choice(5, p=row) for row in p])
    assert calibration_error(p, y) < 0.02
    assert sum(share for share, _, _ in calibration_bins(p, y)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        (np.full((2, 3), 1 / 3), np.zeros(3, int), "do not go together"),
        (np.zeros((0, 3)), np.zeros(0, int), "do not go together"),
        (np.ones((2, 3)), np.zeros(2, int), "no probabilities"),
        (np.array([[np.nan, 1.0]]), np.zeros(1, int), "no probabilities"),
        (np.array([[1.5, -0.5]]), np.zeros(1, int), "no probabilities"),
        (np.full((2, 2), 0.5), np.array([0, 2]), "from 0 to 1"),
        (np.full((2, 2), 0.5), np.array([0.0, 1.0]), "whole numbers"),
    ],
)
def test_what_is_no_classification_is_refused(p: np.ndarray, y: np.ndarray, said: str) -> None:
    with pytest.raises(MeasurementError, match=said):
        calibration_error(p, y)


def results(**changes: Any) -> dict[str, Any]:
    p, y = guesses(60)
    sure = np.eye(5)[p.argmax(1)]
    runs = {seed: {"clean": {"a": p, "b": sure}, "noise": {"a": p, "b": sure}} for seed in (0, 1)}
    ways = {"a": "the plain one", "b": "<b> & co"}
    return calibration_results(runs, y, ways, title="Digits", command="outpace calibration", **changes)


def test_the_report_holds_every_number_and_can_be_made_again(tmp_path: Path) -> None:
    made = results(notes=["Of no other use."])
    (tmp_path / "results.json").write_text(json.dumps(made))
    page = render(load_results(tmp_path), tmp_path).read_text()
    table = (tmp_path / "report.md").read_text()
    for row in summary(made):
        for measure in ("ece", "brier"):
            assert f"{row['corrupted'][measure]:.3f}" in page and f"{row['corrupted'][measure]:.3f}" in table
    assert "Of no other use." in page and "Of no other use." in table
    assert "&lt;b&gt; &amp; co" in page and "<b> & co" not in page
    assert page.count("<svg") == 2 and "http" not in page.replace("http-equiv", "")
    again = render(load_results(tmp_path), tmp_path / "again").read_text()
    assert again == page


def test_the_best_of_each_column_is_marked() -> None:
    rows = {row["way"]: row for row in summary(results())}
    better = min(rows, key=lambda way: rows[way]["corrupted"]["nll"])
    assert better == "a" and ("corrupted", "nll") in rows["a"]["best"] and ("corrupted", "nll") not in rows["b"]["best"]
    assert all(("clean", "accuracy") in row["best"] for row in rows.values())  # a tie


def test_results_without_a_cell_or_a_corruption_are_refused() -> None:
    p, y = guesses(10)
    with pytest.raises(MeasurementError, match="no seed"):
        calibration_results({}, y, {"a": "a"}, title="", command="")
    with pytest.raises(MeasurementError, match="seed 1 has no b under noise"):
        runs = {
            seed: {"clean": {"a": p, "b": p}, "noise": {"a": p} | ({"b": p} if seed == 0 else {})} for seed in (0, 1)
        }
        calibration_results(runs, y, {"a": "a", "b": "b"}, title="", command="")
    with pytest.raises(MeasurementError, match="at least one corruption"):
        calibration_results({0: {"clean": {"a": p}}}, y, {"a": "a"}, title="", command="")
