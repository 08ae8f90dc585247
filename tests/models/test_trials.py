"""Trials say what happened and nothing else; data and training are the same for every arm."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from outpace.errors import ConfigError
from outpace.models import MODELS, trial_of
from outpace.models.hybrid import HybridConfig, HybridLanguageModel
from outpace.models.trials.data import BYTES, python_source, recall, windows
from outpace.models.trials.fit import text_loss
from outpace.models.trials.trial import LEVEL, Trial, chance, in_words, read_results, run_trial, save_results, verdict

torch.set_num_threads(1)
SHOWN = [name for name in MODELS if (read_results(name) or {}).get("verdict") == "shown"]


def toy(*, gain: float, higher: bool = True) -> Trial:
    return Trial(
        claim="ours is better",
        measure="points",
        higher_is_better=higher,
        arms={"ours": lambda seed: seed + gain, "theirs": lambda seed: seed, "other": lambda seed: 99.0},
        against=("theirs",),
        task="adding",
    )


def test_a_claim_shows_only_where_chance_would_hardly_give_it() -> None:
    assert run_trial(toy(gain=0.1), seeds=5)["verdict"] == "shown"
    assert run_trial(toy(gain=0.1), seeds=4)["verdict"] == "too few seeds to tell"
    assert run_trial(toy(gain=-0.1), seeds=2)["verdict"] == "not reproduced at this scale"
    assert run_trial(toy(gain=0.1, higher=False), seeds=5)["verdict"] == "not reproduced at this scale"
    assert run_trial(toy(gain=0.0), seeds=5)["verdict"] == "not reproduced at this scale"
    uneven = Trial(claim="c", measure="m", higher_is_better=True, task="t", against=("b",),
                   arms={"a": lambda seed: -0.2 if seed == 3 else 1.0, "b": lambda seed: 0.0})  # fmt: skip
    assert run_trial(uneven, seeds=5)["verdict"] == "not reproduced at this scale"  # 2 of 32 ways
    assert run_trial(uneven, seeds=6)["verdict"] == "shown"  # 2 of 64
    with pytest.raises(ConfigError, match="at least one seed"):
        run_trial(toy(gain=1.0), seeds=0)


def test_chance_counts_every_way_that_signs_can_fall() -> None:
    assert chance([1.0] * 5) == 1 / 32 <= LEVEL < chance([1.0] * 4)
    assert chance([0.0] * 5) == 1.0 and chance([-1.0] * 5) == 1.0
    assert chance([3.0, -1.0]) == 2 / 4 and chance([1.0, -3.0]) == 3 / 4


def test_seeds_that_are_known_are_not_run_again() -> None:
    counted: list[int] = []
    trial = Trial(claim="c", measure="m", higher_is_better=True, task="t", against=("b",),
                  arms={"a": lambda seed: counted.append(seed) or 1.0, "b": lambda seed: 0.0})  # fmt: skip
    three = run_trial(trial, seeds=3)
    five = run_trial(trial, seeds=5, known=three)
    assert counted == [0, 1, 2, 3, 4] and five["verdict"] == "shown"
    assert [run["seeds"] for run in five["runs"]] == [[0, 1, 2], [3, 4]]
    with pytest.raises(ConfigError, match="of another trial"):
        run_trial(toy(gain=1.0), seeds=5, known=three)


def test_results_are_written_read_and_told(tmp_path: Path) -> None:
    results = run_trial(toy(gain=-1.0), seeds=5)
    save_results("toy", results, tmp_path)
    assert read_results("toy", tmp_path) == results and read_results("no", tmp_path) is None
    words = in_words(results)
    assert words.startswith("not reproduced at this scale: ours is better.") and "ours 1 (-1, 0, 1, 2, 3)" in words
    assert "over theirs -50.0%, p = 1" in words


@pytest.mark.parametrize("name", [name for name in MODELS if read_results(name) is not None])
def test_what_a_card_shows_was_measured_with_the_trial_as_it_is(name: str) -> None:
    trial, results = trial_of(name), read_results(name)
    assert results is not None and set(results["scores"]) == set(trial.arms)
    assert (results["claim"], results["task"]) == (trial.claim, trial.task)
    assert all(len(values) == results["seeds"] for values in results["scores"].values())
    assert sorted(seed for run in results["runs"] for seed in run["seeds"]) == list(range(results["seeds"]))
    assert results["verdict"] == verdict(results)
    assert results["p"] == {arm: chance(gains) for arm, gains in results["gains"].items()}


def test_the_page_of_verdicts_is_written_from_the_results(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("trials_page", root / "docs" / "trials.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python docs/trials.py"


def test_text_and_pairs() -> None:
    train, held = python_source()
    assert len(held) > 1000 and int(train.max()) < BYTES
    pieces = windows(held, 3, 10, torch.Generator().manual_seed(0))
    assert pieces.shape == (3, 11) and torch.equal(pieces, windows(held, 3, 10, torch.Generator().manual_seed(0)))
    tokens, targets = recall(5, 4, torch.Generator().manual_seed(0))
    for row, asked in zip(tokens.tolist(), targets.tolist(), strict=True):
        pairs = dict(zip(row[0:8:2], row[1:8:2], strict=True))
        assert len(pairs) == 4 and [pairs[key] for key in row[8:]] == asked[8:] and set(asked[:8]) == {-100}


def test_training_learns_and_repeats_itself() -> None:
    config = HybridConfig(layer_types=("gla",), width=16, heads=2, hidden=16, vocabulary=BYTES)
    losses = [
        text_loss(lambda: HybridLanguageModel(config), 0, steps=steps, length=16, batch=4) for steps in (1, 25, 25)
    ]
    assert losses[1] < losses[0] - 0.2 and losses[1] == losses[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_claim_that_a_card_calls_shown_shows_again(name: str) -> None:
    results = run_trial(trial_of(name), seeds=1)
    assert all(gain > 0 for gains in results["gains"].values() for gain in gains)
