"""Sisters: trained by the same code on another split from other seeds, and called like the pocket they belong to."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from outpace.cli import main
from outpace.errors import InputError, UnknownNameError
from outpace.pipelines import POCKETS, train_pocket
from outpace.pipelines.load import load_pipeline
from outpace.pipelines.pocket import cards, clips, digits, flux, photo, photographs, scenes, sisters, wan
from outpace.pipelines.pocket.dit import DiTRecipe
from outpace.pipelines.pocket.flux import FluxRecipe
from outpace.pipelines.pocket.sisters import SISTERS, sister_of, trained
from outpace.pipelines.pocket.training import FitSettings
from outpace.pipelines.pocket.wan import WanRecipe

RECIPES: dict[str, tuple[Any, Any]] = {
    "dit": (DiTRecipe(), sisters.dit_recipe()),
    "flux": (FluxRecipe(), sisters.flux_recipe()),
    "photo": (photo.PHOTO, sisters.photo_recipe()),
    "wan": (WanRecipe(), sisters.wan_recipe()),
}


@pytest.mark.parametrize("name", SISTERS)
def test_a_sister_differs_in_seeds_depth_width_and_split(name: str):
    plain, sister = RECIPES[name]
    assert plain.seed != sister.seed
    for field in fields(plain):
        one, other = getattr(plain, field.name), getattr(sister, field.name)
        if isinstance(one, FitSettings):
            assert one.seed != other.seed, field.name
    depths = ("blocks",) if hasattr(plain, "blocks") else ("double_blocks", "single_blocks")
    deeper = {getattr(sister, depth) > getattr(plain, depth) for depth in depths}
    wider = sister.heads * sister.head_width > plain.heads * plain.head_width
    assert deeper == {not wider}, "a step costs about as much"
    split = {"dit": "first_stroke", "photo": "left_from"}.get(name, "fold")
    assert getattr(plain, split) != getattr(sister, split)


def test_what_a_sister_is_measured_on_was_not_trained_on():
    trained_on, unseen = (set(part.tolist()) for part in digits.stroke_numbers(sisters.dit_recipe().first_stroke))
    shipped = set(digits.stroke_numbers()[0].tolist())
    assert len(trained_on) == digits.TRAIN_COUNT and not trained_on & unseen
    assert unseen <= shipped and len(trained_on | unseen) == len(digits.digit_strokes()[0])
    for name, parse in (("flux", scenes.parse_caption), ("wan", clips.parse)):
        fold = RECIPES[name][1].fold
        held_out = SISTERS[name].prompts(64, "held_out")
        assert all(parse(caption).fold == fold for caption in held_out)
        for split in ("train", "calibration"):
            assert all(parse(caption).fold != fold for caption in SISTERS[name].prompts(300, split))
        assert not set(held_out) & set(POCKETS[name].prompts(64, "held_out"))


def test_a_sister_trains_on_its_own_split():
    generator = torch.Generator().manual_seed(0)
    fold = sisters.flux_recipe().fold
    assert all(scene.fold != fold for scene in flux.draw_scenes(400, generator, fold=fold))
    assert any(scene.held_out for scene in flux.draw_scenes(400, generator, fold=fold))
    drawn = wan.draw_clips(200, generator, fold=sisters.wan_recipe().fold)[0]
    assert all(clip.fold != sisters.wan_recipe().fold for clip in drawn) and any(clip.held_out for clip in drawn)


def test_the_sister_of_photo_is_trained_on_the_right_half_of_each_photograph(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("skimage", reason="most photographs come with scikit-image")
    across = torch.arange(1000.0).expand(3, 400, 1000) / 1000  # a picture that tells where a crop was taken
    monkeypatch.setattr(photographs, "photograph", lambda subject: across)

    def leftmost(recipe: Any) -> float:
        taken = photographs.crops([0] * 64, torch.Generator().manual_seed(3), left_from=recipe.left_from)
        return float(taken.min())

    assert leftmost(sisters.photo_recipe()) > 0.4 and leftmost(photo.PHOTO) < 0.1


def test_who_has_a_sister():
    assert sister_of("dit").name == "dit-sister" and trained("dit-sister") is SISTERS["dit"]
    assert trained("dit") is POCKETS["dit"]
    with pytest.raises(InputError, match=r"'lego' has no sister; these have one: dit, flux, photo, wan"):
        sister_of("lego")
    with pytest.raises(UnknownNameError, match="did you mean 'flux'"):
        sister_of("flix")
    with pytest.raises(UnknownNameError):
        trained("lego-sister")


def test_a_trained_sister_is_found_by_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(cards, "check_pocket", partial(cards.check_pocket, steps=2))
    monkeypatch.setattr(sisters, "dit_recipe", lambda: replace(RECIPES["dit"][1], pictures=128))
    folder = train_pocket("dit-sister", tmp_path / "dit", budget=0.001, progress=False)
    loaded = load_pipeline(str(folder), device="cpu", progress=False)
    assert loaded.pocket is SISTERS["dit"] and loaded.call == {"guidance_scale": 4.0}
    assert loaded.pipe.transformer.config.num_layers == sisters.dit_recipe().blocks
    assert "outpace pocket train dit --sister" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_command_refuses_what_has_no_sister(tmp_path: Path):
    done = CliRunner().invoke(main, ["pocket", "train", "vdt", "--sister", "--out", str(tmp_path / "x")])
    assert done.exit_code == 2 and "'vdt' has no sister" in done.stderr
    assert not (tmp_path / "x").exists()


def test_the_sisters_that_figures_were_taken_with_meet_the_bar_of_their_pockets():
    facts = json.loads(sisters.SISTER_FACTS.read_text(encoding="utf-8"))
    assert facts, "no sister has been trained"
    for name, fact in facts.items():
        pocket = trained(name)
        assert fact["pocket"] == name and len(fact["weights"]) == 16
        for key, bar in pocket.bar.items():
            assert fact["check"]["accuracy"][key] >= bar, (name, key)
