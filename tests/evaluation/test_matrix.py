"""The composition matrix: shares that sum to the whole, how errors add, the best per target, in the report."""

from __future__ import annotations

import json
import math
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpace.evaluation import Contender, Result, build_results, run_study
from outpace.evaluation.matrix import (
    TARGETS,
    Combination,
    MatrixAxis,
    best_for_targets,
    build_matrix,
    how_errors_add,
    shapley,
)
from outpace.evaluation.report import render
from outpace.evaluation.report.matrix import matrix_section, matrix_sentences

PIPELINE = {"name": "toy", "class": "Toy", "kind": "image", "scheduler": "Euler", "steps": 50}
SETTINGS = {"forecast": {"threshold": 0.1}, "interval": {"interval": 2}, "solver": {"second": True}}
"""Parts of the toy: how each changes a run."""


def subsets(players: list[str]) -> list[frozenset[str]]:
    return [frozenset(c) for c in chain.from_iterable(combinations(players, n) for n in range(len(players) + 1))]


@st.composite
def games(draw: st.DrawFn) -> tuple[list[str], dict[frozenset[str], float]]:
    players = [f"p{i}" for i in range(draw(st.integers(1, 4)))]
    amounts = st.floats(-100, 100, allow_nan=False)
    return players, {chosen: draw(amounts) if chosen else 0.0 for chosen in subsets(players)}


@given(games())
def test_shares_sum_to_the_whole(game: tuple[list[str], dict[frozenset[str], float]]) -> None:
    players, values = game
    assert sum(shapley(players, values).values()) == pytest.approx(values[frozenset(players)], abs=1e-9)


@given(games())
def test_a_part_that_changes_nothing_has_nothing_and_the_others_keep_theirs(game: Any) -> None:
    players, values = game
    padded = {chosen | extra: value for chosen, value in values.items() for extra in (frozenset(), frozenset({"idle"}))}
    owed, alone = shapley([*players, "idle"], padded), shapley(players, values)
    assert owed["idle"] == pytest.approx(0, abs=1e-9)
    assert all(owed[p] == pytest.approx(alone[p], abs=1e-9) for p in players)


@given(st.lists(st.floats(-100, 100, allow_nan=False), min_size=5, max_size=5))
def test_parts_that_count_alike_have_equal_shares(by_size: list[float]) -> None:
    players = ["a", "b", "c", "d"]
    owed = shapley(players, {chosen: by_size[len(chosen)] if chosen else 0.0 for chosen in subsets(players)})
    assert all(value == pytest.approx(owed["a"], abs=1e-9) for value in owed.values())


@given(games())
def test_values_of_draws_are_divided_one_by_one(game: Any) -> None:
    players, values = game
    together = shapley(players, {chosen: np.array([v, 3 * v, -v]) for chosen, v in values.items()})
    for player, owed in shapley(players, values).items():
        np.testing.assert_allclose(together[player], [owed, 3 * owed, -owed], atol=1e-9)


@pytest.mark.parametrize(
    ("over_sum", "over_root", "words"),
    [
        ((0.1, 0.3), (0.4, 0.6), "more than their sum"),
        ((-0.1, 0.1), (0.2, 0.4), "their sum"),
        ((-0.3, -0.1), (0.1, 0.3), "between independent errors and their sum"),
        ((-0.3, -0.1), (-0.1, 0.1), "independent errors"),
        ((-0.3, -0.1), (-0.3, -0.1), "less than independent errors"),
        ((-0.1, 0.1), (-0.1, 0.1), "their sum or independent errors alike"),
        ((None, None), (0.2, 0.4), "their sum"),
    ],
)
def test_how_errors_add_is_told_from_their_intervals(over_sum: Any, over_root: Any, words: str) -> None:
    def entry(low: float | None, high: float | None) -> dict[str, Any]:
        return {"value": 0.0 if low is None or high is None else (low + high) / 2, "low": low, "high": high}

    assert how_errors_add(entry(*over_sum), entry(*over_root)) == words


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, make_study: Any, make_contender: Any) -> Any:
    """A toy study of 2 x 2 x 2, timed, of whose combinations one cannot be and one fails."""
    axes = [MatrixAxis(name=name, label=f"the {name}", choices={"on": f"{name} on"}) for name in SETTINGS]
    axes.append(MatrixAxis(name="experts", label="experts", choices={}, reason="nothing here routes tokens"))
    asked = [
        Combination(
            parts=dict.fromkeys(names, "on"),
            label=" + ".join(names) or "plain",
            contender="-".join(("matrix", *names)) if names else "plain",
            method="+".join(names),
            refused="they take hold of the same steps" if {"forecast", "interval"} == set(names) else None,
        )
        for names in map(sorted, subsets(list(SETTINGS)))
    ]

    def broken(requests: Any) -> list[Result]:
        raise ValueError("out of luck")

    contenders = [make_contender("plain", "plain"), make_contender("converged", "converged", 150, second=True)]
    contenders += [make_contender("steps-20", "fewer-steps", 20, curve="fewer steps")]
    for combination in asked:
        settings = {k: v for part in combination.parts for k, v in SETTINGS[part].items()}
        if len(combination.parts) == 3:
            contenders.append(
                Contender(name=combination.contender, label="all", kind="combination", steps=50, generate=broken)
            )
        elif combination.parts and combination.refused is None:
            contenders.append(make_contender(combination.contender, "combination", **settings))
    folder = tmp_path_factory.mktemp("matrix")
    study = make_study(folder, requests=8, contenders=contenders, timing_requests=2, timed="every")
    results = build_results(
        study, run_study(study, progress=False), pipeline=PIPELINE, command="outpace compare toy --matrix",
        environment={"device": "a desk"},
    )  # fmt: skip
    results["matrix"] = build_matrix(axes, asked, results)
    return json.loads(json.dumps(results)), folder


def row_of(results: dict[str, Any], *parts: str) -> dict[str, Any]:
    return next(row for row in results["matrix"]["combinations"] if set(row["parts"]) == set(parts))


def test_a_combination_is_divided_among_its_parts(matrix: Any) -> None:
    results, _ = matrix
    row = row_of(results, "forecast", "solver")
    for name, entry in row["attribution"].items():
        assert sum(part["value"] for part in entry["parts"].values()) == pytest.approx(entry["total"]["value"]), name
    latents = row["attribution"]["latents"]
    assert latents["total"]["value"] == pytest.approx(row["metrics"]["plain"]["latent_l2"]["value"])
    assert sum(share["value"] for share in latents["shares"].values()) == pytest.approx(1)
    alone = [row_of(results, part)["metrics"]["plain"]["latent_l2"]["value"] for part in ("forecast", "solver")]
    assert latents["sum"]["value"] == pytest.approx(sum(alone))
    assert latents["quadrature"]["value"] == pytest.approx(math.hypot(*alone))
    assert all(part["low"] <= part["value"] <= part["high"] for part in latents["parts"].values())
    lost = row["attribution"]["decibels"]["total"]["value"]
    own = next(c for c in results["contenders"] if c["name"] == "plain")["metrics"]["converged"]["psnr"]["value"]
    assert lost == pytest.approx(own - row["metrics"]["converged"]["psnr"]["value"])
    assert math.exp(row["attribution"]["compute"]["total"]["value"]) == pytest.approx(row["speedup"]["value"])
    assert math.exp(row["attribution"]["time"]["total"]["value"]) == pytest.approx(row["time"]["value"])
    assert row["attribution"]["compute"]["parts"]["forecast"]["value"] > 0.3
    assert abs(row["attribution"]["compute"]["parts"]["solver"]["value"]) < 0.1  # it only moves the gate a little


def test_what_did_not_run_is_a_row_with_its_reason(matrix: Any) -> None:
    results, _ = matrix
    assert len(results["matrix"]["combinations"]) == 8
    assert row_of(results, "forecast", "interval")["refused"] == "they take hold of the same steps"
    whole = row_of(results, *SETTINGS)
    assert whole["refused"] == "ValueError: out of luck" and "attribution" not in whole
    assert not row_of(results)["parts"] and "attribution" not in row_of(results, "solver")


def test_a_combination_with_a_missing_subset_is_not_divided(matrix: Any) -> None:
    results, _ = matrix
    broken = json.loads(json.dumps(results))
    failed = next(c for c in broken["contenders"] if c["name"] == "matrix-solver")
    failed["error"] = "ValueError: gone"
    asked = [
        Combination(**{k: r[k] for k in ("parts", "label", "contender", "method", "refused")})
        for r in results["matrix"]["combinations"]
    ]
    again = build_matrix([], asked, broken)
    row = next(r for r in again["combinations"] if set(r["parts"]) == {"forecast", "solver"})
    assert row["refused"] is None and all(entry is None for entry in row["attribution"].values())


def test_the_best_for_a_target_is_the_fastest_that_surely_meets_it(matrix: Any) -> None:
    results, _ = matrix
    best = results["matrix"]["best"]
    assert [entry["target"] for entry in best] == list(TARGETS)
    measured = [row for row in results["matrix"]["combinations"] if row["parts"] and row["refused"] is None]
    for entry in best:
        sure = [r for r in measured if r["metrics"]["plain"]["psnr"]["low"] >= entry["target"]]
        fastest = max((row["time"]["value"] for row in sure), default=0.0)
        assert entry["by"] == "time" and entry["times"] == (fastest if fastest > 1 else 1.0)
        assert bool(entry["parts"]) == (fastest > 1)
    untimed = [row | {"time": None} for row in results["matrix"]["combinations"]]
    in_compute = best_for_targets(untimed, results)
    assert {entry["by"] for entry in in_compute} == {"compute"}
    assert in_compute[0]["method"] and in_compute[0]["times"] > 1.2


def test_a_faster_rival_is_named(matrix: Any) -> None:
    results, _ = matrix
    made = json.loads(json.dumps(results))
    rival = next(c for c in made["contenders"] if c["name"] == "steps-20")
    rival["time"]["wall"]["value"], rival["metrics"]["plain"]["psnr"]["low"] = 1e4, 99.0
    for entry in best_for_targets(made["matrix"]["combinations"], made):
        assert entry["rival"] == {"label": "steps 20", "times": 1e4, "low": 99.0}
    rival["metrics"]["plain"]["psnr"]["low"] = 1.0
    assert not any(entry["rival"] for entry in best_for_targets(made["matrix"]["combinations"], made))


def test_page_table_and_summary_tell_of_the_matrix(matrix: Any) -> None:
    results, folder = matrix
    page = render(results, folder).read_text(encoding="utf-8")
    table = (Path(folder) / "report.md").read_text(encoding="utf-8")
    section = matrix_section(results)
    assert section is not None
    assert [head["name"] for head in section["axes"]] == list(SETTINGS)
    said = matrix_sentences(results)
    assert (
        any("PSNR >= 40 dB" in line for line in said) and "Not combined, experts: nothing here routes tokens." in said
    )
    for text in (page, table):
        assert "refused: they take hold of the same steps" in text and "refused: ValueError: out of luck" in text
        assert "nothing here routes tokens" in text and results["matrix"]["best"][0]["label"] in text
        assert all(account["label"] in text for account in results["matrix"]["accounts"].values())
    assert 'id="matrix"' in page and 'href="#matrix"' in page


def test_a_report_without_a_matrix_does_not_speak_of_one(matrix: Any, tmp_path: Path) -> None:
    results = {key: value for key, value in matrix[0].items() if key != "matrix"}
    page = render(results, tmp_path).read_text(encoding="utf-8")
    assert "#matrix" not in page and "## Combinations" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert matrix_section(results) is None and matrix_sentences(results) == []
