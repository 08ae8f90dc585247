"""Two sets of results: what else differs is said first, what got worse is found, what did not is left alone."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from click.testing import CliRunner

from outpace.cli import main
from outpace.errors import InputError
from outpace.evaluation import build_results, run_study
from outpace.evaluation.atomic import write_json
from outpace.evaluation.diff import diff, table
from outpace.evaluation.intervals import percentile_interval, resamples
from outpace.evaluation.paired import sign_flip_p

PIPELINE = {"name": "toy", "class": "Toy", "kind": "image", "scheduler": "Euler", "steps": 50}


@pytest.fixture(scope="module")
def before(tmp_path_factory, make_study, make_contender):
    contenders = [
        make_contender("plain", "plain"),
        make_contender("converged", "converged", 150, second=True),
        make_contender("gated", "gated", curve="gated", threshold=0.05),
        make_contender("interval", "interval", curve="interval", interval=3),
    ]
    study = make_study(
        tmp_path_factory.mktemp("a"), requests=10, contenders=contenders, timing_requests=2, timing_rounds=2
    )
    rows = run_study(study, progress=False)
    return build_results(study, rows, pipeline=PIPELINE, command="c", environment={"device": "a desk", "torch": "2"})


def entry(results, name):
    return next(c for c in results["contenders"] if c["name"] == name)


def worsened(results, name, decibels):
    made = copy.deepcopy(results)
    for sample, by in zip(entry(made, name)["samples"], decibels, strict=True):
        sample["metrics"]["plain"]["psnr"] -= by
    return made


def test_results_do_not_differ_from_themselves(before) -> None:
    found = diff(before, copy.deepcopy(before))
    assert found.comparable and not found.setting and not found.worse
    assert found.requests == 10 and len(found.changes) > 10
    assert all((c.value, c.low, c.high, c.p_adjusted) == (0.0, 0.0, 0.0, 1.0) for c in found.changes)
    assert "0 changed, 0 significantly" in table(found)
    speed = next(c for c in found.changes if c.quantity == "computed speed-up" and c.contender == "gated")
    assert speed.before == pytest.approx(entry(before, "gated")["speedup"]["value"])
    quality = next(c for c in found.changes if c.quantity == "PSNR to plain" and c.contender == "gated")
    assert quality.before == pytest.approx(entry(before, "gated")["metrics"]["plain"]["psnr"]["value"])
    timed = next(c for c in found.changes if c.quantity == "wall speed-up" and c.contender == "gated")
    assert timed.n == 2


def test_what_got_worse_is_found_with_its_interval_and_its_p(before) -> None:
    by = np.linspace(0.5, 1.5, 10)
    found = diff(before, worsened(before, "gated", by))
    (change,) = [c for c in found.changes if c.value]
    assert change is found.changes[0] and change.worse and found.worse
    assert (change.contender, change.quantity, change.n) == ("gated", "PSNR to plain", 10)
    assert change.value == pytest.approx(-1.0)
    low, high = percentile_interval(-by[resamples(10)].mean(axis=1))
    assert (change.low, change.high) == pytest.approx((low, high))
    # Holm multiplies the smallest p by the number of contenders that have a distance to the plain pipeline.
    tested = sum(c.quantity == "PSNR to plain" for c in found.changes)
    assert change.p_adjusted == pytest.approx(tested * sign_flip_p(-by)) and tested == 2
    assert "| gated | PSNR to plain |" in table(found) and "| worse |" in table(found)
    back = diff(worsened(before, "gated", by), before)
    assert back.changes[0].significant and not back.worse and "| better |" in table(back)


def test_noise_is_not_called_worse(before) -> None:
    found = diff(before, worsened(before, "gated", [1.0, -1.0, 0.9, -0.9, 1.1, -1.1, 1.0, -0.95, 0.8, -0.7]))
    (change,) = [c for c in found.changes if c.value]
    assert not change.significant and not found.worse and change.low < 0 < change.high


def test_requests_are_matched_by_prompt_and_seed(before) -> None:
    fewer = copy.deepcopy(before)
    fewer["requests"] = [r | {"index": r["index"] - 4} for r in fewer["requests"][4:]]
    for contender in fewer["contenders"]:
        contender["samples"] = [s | {"index": s["index"] - 4} for s in contender["samples"][4:]]
    found = diff(before, fewer)
    assert found.requests == 6 and found.comparable
    assert ("requests", "10, of which 6 shared", "6, of which 6 shared") in found.setting
    assert not any(c.value for c in found.changes if c.quantity != "wall speed-up")
    assert {c.n for c in found.changes if c.quantity == "PSNR to plain"} == {6}


def test_what_else_differs_and_who_is_missing_are_said(before) -> None:
    after = copy.deepcopy(before)
    after["pipeline"]["steps"] = 28
    after["environment"] |= {"torch": "3", "load average": "9"}
    after["requests"] = [r | {"seed": r["seed"] + 1000} for r in after["requests"]]
    entry(after, "interval")["error"] = "ValueError: no"
    entry(after, "gated")["name"] = "renamed"
    found = diff(before, after)
    assert not found.comparable and not found.changes
    assert {what for what, _, _ in found.setting} == {"pipeline: steps", "environment: torch", "requests"}
    assert (found.only_before, found.only_after) == (("gated",), ("renamed",))
    assert found.broken == (("interval", "ValueError: no"),) and found.worse
    text = table(found)
    assert text.startswith("**Not comparable**") and "| environment: torch | 2 | 3 |" in text
    assert "interval failed in B: ValueError: no" in text and "in A alone: gated" in text
    assert diff(after, before).mended == ("interval",) and not diff(after, before).worse


def test_sets_without_counted_attention_are_read(before) -> None:
    old = copy.deepcopy(before)
    for contender in old["contenders"]:
        for sample in contender["samples"]:
            del sample["work"]
    assert not any(c.value for c in diff(old, before).changes)


def test_the_command(before, tmp_path) -> None:
    for name, results in (("a", before), ("b", worsened(before, "gated", np.linspace(0.5, 1.5, 10)))):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", results)
    runner, a, b = CliRunner(), str(tmp_path / "a"), str(tmp_path / "b" / "results.json")
    plainly = runner.invoke(main, ["diff", a, b])
    assert plainly.exit_code == 0 and "1 worse" in plainly.stdout
    assert runner.invoke(main, ["diff", a, b, "--fail-on-worse"]).exit_code == 1
    assert runner.invoke(main, ["diff", b, a, "--fail-on-worse"]).exit_code == 0
    data = json.loads(runner.invoke(main, ["diff", a, b, "--json"]).stdout)
    assert data["comparable"] and data["worse"] and data["changes"][0]["significant"]
    missing = runner.invoke(main, ["diff", a, str(tmp_path / "c")])
    assert missing.exit_code == 2 and "does not exist" in missing.stderr and missing.stderr.count("\n") == 1


def test_another_schema_is_refused(before) -> None:
    with pytest.raises(InputError, match="schema 99"):
        diff(before, before | {"schema": 99})
