"""`outpace models`: cards, checks and trials at the shell."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from outpace.cli import main
from outpace.models import MODELS, Check, checks_of, companion
from outpace.models.trials.trial import Trial


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["models", *words])


def test_every_model_is_listed() -> None:
    text, data = run("list").stdout, json.loads(run("list", "--json").stdout)
    assert list(data) == sorted(MODELS)
    assert all(model.summary in text and name in text for name, model in MODELS.items())


@pytest.mark.parametrize("name", MODELS)
def test_a_card_says_everything(name: str) -> None:
    model, result = MODELS[name], run("show", name, "--json")
    assert result.exit_code == 0, result.output
    card = json.loads(result.stdout)
    assert card["implemented"] == list(model.done) and card["limits"] == list(model.limits)
    assert card["holds exactly"] and card["tried here"]
    assert model.title in " ".join(run("show", name).stdout.split())


def test_checks_are_run_and_told() -> None:
    found = json.loads(run("check", "gam", "--json").stdout)
    assert [one["held"] for one in found["gam"]] == [True] * len(checks_of("gam"))


def test_a_check_that_does_not_hold_ends_in_1(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Check(about="two is three", measure=lambda: 1.0, at_most=0.0)
    monkeypatch.setitem(companion._CHECKS, "gam", [wrong])
    result = run("check", "gam")
    assert result.exit_code == 1 and "NO  two is three" in result.stdout and "NO  two is three" in result.stdout


def test_a_trial_is_run_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(claim="a beats b", measure="points", higher_is_better=True, task="nothing much", against=("b",),
                  arms={"a": lambda seed: 2.0, "b": lambda seed: 1.0})  # fmt: skip
    monkeypatch.setattr("outpace.models.trial_of", lambda name: trial)
    result = run("bench", "gam")
    assert result.exit_code == 0 and "shown: a beats b. points (higher is better), mean of 5 seeds" in result.stdout
    assert json.loads(run("bench", "gam", "--seeds", "1", "--json").stdout)["scores"] == {"a": [2.0], "b": [1.0]}


def test_a_model_without_a_trial_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outpace.models.trial_of", lambda name: None)
    result = run("bench", "gam")
    assert result.exit_code == 2 and "no trial of gam's claim" in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "gamm"], "did you mean 'gam'"),
        (["check"], "the NAME of a model, or --all"),
        (["check", "gam", "--all"], "the NAME of a model, or --all"),
        (["bench", "gam", "--seeds", "0"], "--seeds"),
        (["chek"], "chek"),
    ],
)
def test_slips_end_in_one_line(words: list[str], says: str) -> None:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert says in result.stderr and len(result.stderr.strip().splitlines()) == 1
