"""The pocket ladine: what its prompts mean, how it is generated, and that its training can be rehearsed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from outpace.cli import main
from outpace.errors import InputError, UnknownNameError
from outpace.pipelines import load_pocket, pocket_path
from outpace.pipelines.media import read_recipe
from outpace.pipelines.pocket.ladine import (
    FIT_COUNT,
    LadineRecipe,
    digit_prompts,
    draw_strokes,
    held_out_digits,
    pictures_of,
    train_ladine,
)
from outpace.pipelines.pocket.recipes import scaled


def test_nothing_that_is_tested_on_was_trained_on() -> None:
    (calibration, _), (tests, classes) = held_out_digits("calibration"), held_out_digits("test")
    assert (FIT_COUNT, len(calibration), len(tests)) == (1200, 300, 297) and set(classes.tolist()) == set(range(10))


def test_training_digits_are_pictures_and_repeat() -> None:
    once, again = (draw_strokes(5, torch.Generator().manual_seed(1)) for _ in range(2))
    assert once[0].shape == (5, 1, 8, 8) and 0 <= float(once[0].min()) and float(once[0].max()) <= 1
    assert torch.equal(once[0], again[0]) and torch.equal(once[1], again[1])


def test_a_prompt_is_a_digit_and_what_is_done_to_it() -> None:
    tests, classes = held_out_digits("test")
    made = pictures_of(["3", "3 clean", "3 noise-50"], [4, 4, 4])["pictures"]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert torch.equal(made[0], tests[classes == 3][4])
    assert not torch.equal(made[0], pictures_of(["3"], [5])["pictures"][0])
    assert pictures_of(digit_prompts(9, "held_out"), range(9))["pictures"].shape == (9, 1, 8, 8)


@pytest.mark.parametrize("prompt", ["three", "11", "3 noise-50 clean"])
def test_a_prompt_that_is_none(prompt: str) -> None:
    with pytest.raises(InputError, match="is not a digit from 0 to 9"):
        pictures_of([prompt], [0])


def test_a_corruption_that_there_is_not() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'noise-50'"):
        pictures_of(["3 noise-51"], [0])


def test_it_trains_through_every_stage_and_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe = scaled(LadineRecipe(width=16, blocks=3, members=2, times=20, pictures=64), 1 / 200)
    first, facts = train_ladine(tmp_path, recipe, progress=False)
    second, again = train_ladine(tmp_path, recipe, progress=False)
    assert list(facts["parts"]) == ["encoder", "mapping", "denoiser"]
    assert again["calibrated_on_300_digits"] == facts["calibrated_on_300_digits"]
    for one, other in zip(first.denoiser.parameters(), second.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)
    pictures, _ = held_out_digits("test")
    assert first(pictures[:2], num_inference_steps=3).probabilities.shape == (2, 10)


def test_the_shipped_one_is_small_and_generates_a_chart(tmp_path: Path) -> None:
    files = [file for file in pocket_path("ladine").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 2_000_000
    words = ["generate", "ladine", "--prompt", "3 noise-25", "--prompt", "8", "--seed", "1,2", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "'ladine' has no transformer blocks to forecast" in done.stdout
    made = sorted(tmp_path.glob("*.png"))
    assert len(made) == 2 and read_recipe(made[0])["prompt"] == "3 noise-25"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", "3 fog"), "does not know the word 'fog'"),
        (("--prompt", "3", "--steps", "101"), "takes 1 to 100"),
        (("--prompt", "3", "--guidance", "4"), "takes no --guidance"),
        (("--prompt", "3", "--preset", "fast"), "no transformer"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(main, ["generate", "ladine", *words, "--out", str(tmp_path / "a.png")])
    assert done.exit_code == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.output


def test_the_shipped_one_reads_clean_digits() -> None:
    pictures, classes = held_out_digits("test")
    pipe = load_pocket("ladine")
    made = pipe(pictures, num_inference_steps=10, samples=5, generator=torch.Generator().manual_seed(0))
    assert float((made.probabilities.argmax(1) == classes).float().mean()) > 0.9
    card = json.loads((pocket_path("ladine") / "card.json").read_text(encoding="utf-8"))
    assert card["training"]["calibrated_on_300_digits"]["iota"] == pipe.config["iota"]["probabilities"]
