"""Making a pocket again: the command end to end on a toy, what it refuses, and every recipe at a few steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from outpace.errors import ConfigError, InputError, UnknownNameError
from outpace.pipelines import POCKETS, load_pocket, train_pocket
from outpace.pipelines.pocket import dit, flux
from outpace.pipelines.pocket.cards import check_pocket, write_card
from outpace.pipelines.pocket.recipes import Pocket, scaled
from outpace.pipelines.pocket.training import FitSettings, fit


@pytest.fixture
def toy(tiny_pipe: Any) -> Iterator[str]:
    """A pocket whose training takes no time."""

    def train(folder: Path, *, budget: float | None, device: str, progress: bool) -> tuple[Any, dict[str, Any]]:
        layer = nn.Linear(1, 1)
        steps = round(10 * (budget or 1))
        result = fit("part", layer, lambda generator, batch: layer(torch.ones(batch, 1)).square().mean(),
                     FitSettings(steps=steps, autocast=False), folder, progress=progress)  # fmt: skip
        return tiny_pipe, {"parts": {"part": result}, "words_understood": 0.5}

    pocket = Pocket(
        name="toy",
        summary="noise",
        kind="image",
        prompts=lambda count, split: [index % 10 for index in range(count)],
        check=lambda media, prompts: [{"digit": float(np.isfinite(sample).all())} for sample in media],
        train=train,
        call={"guidance_scale": 1.0},
        prompt_argument="class_labels",
        steps=2,
        bar={"digit": 0.5},
        data="nothing",
    )
    POCKETS.add("toy", pocket)
    yield "toy"
    POCKETS.remove("toy")


def test_training_leaves_a_pipeline_and_a_card(toy: str, tmp_path: Path):
    folder = train_pocket(toy, tmp_path / "made", progress=False)
    assert load_pocket(folder).transformer.config.num_layers == 6
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["training"]["parts"]["part"]["steps"] == 10 and card["check"]["accuracy"] == {"digit": 1.0}
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "| digit | 1.000 | 0.50 |" in text and "| part | 10 |" in text and "Words understood: 0.5." in text
    assert not (folder / ".part").exists()


def test_training_goes_on_unless_told_otherwise(toy: str, tmp_path: Path):
    folder = train_pocket(toy, tmp_path, progress=False)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    train_pocket(toy, folder, progress=False)
    with pytest.raises(ConfigError, match="other settings"):
        train_pocket(toy, folder, budget=2.0, progress=False)
    train_pocket(toy, folder, budget=2.0, resume=False, progress=False)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["training"]["parts"]["part"]["steps"] == 20
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_what_cannot_be_trained_is_refused(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="no pocket 'flix'"):
        train_pocket("flix", tmp_path)
    with pytest.raises(ConfigError, match="2 processes on 'cuda'"):
        train_pocket("dit", tmp_path, processes=2, device="cuda")
    with pytest.raises(ConfigError, match="0 processes"):
        train_pocket("dit", tmp_path, processes=0)
    with pytest.raises(InputError, match=r"no card\.json"):
        write_card(tmp_path, {})


def test_a_budget_scales_every_run_of_a_recipe():
    recipe = scaled(flux.FluxRecipe(), 0.1)
    assert recipe.denoiser.steps == round(0.1 * flux.FluxRecipe().denoiser.steps)
    assert recipe.autoencoder.steps == round(0.1 * flux.FluxRecipe().autoencoder.steps)
    assert recipe.denoiser.batch == flux.FluxRecipe().denoiser.batch
    assert scaled(recipe, None) is recipe


def short(steps: int = 2) -> FitSettings:
    return FitSettings(steps=steps, batch=4, rate=1e-3, muon_rate=1e-3, autocast=False)


def test_the_dit_recipe_runs_from_nothing(tmp_path: Path):
    pytest.importorskip("sklearn")
    recipe = dit.DiTRecipe(autoencoder=short(), reader=short(), denoiser=short(), pictures=16, blocks=2)
    pipe, facts = dit.train_dit(tmp_path, recipe, progress=False)
    assert (tmp_path / "digit_reader.safetensors").is_file()
    assert facts["parts"]["denoiser"].samples == 8  # type: ignore[index]
    made = pipe([1], num_inference_steps=2, guidance_scale=4.0, output_type="np").images
    assert made.shape == (1, 32, 32, 3) and np.isfinite(made).all()


def test_the_flux_recipe_runs_from_nothing(tmp_path: Path):
    recipe = flux.FluxRecipe(
        autoencoder=short(), clip=short(), t5=short(), denoiser=short(), scenes=16, double_blocks=1, single_blocks=2
    )
    pipe, facts = flux.train_flux(tmp_path, recipe, progress=False)
    assert set(facts["parts"]) == {"autoencoder", "clip", "t5", "denoiser"}  # type: ignore[call-overload]
    call = POCKETS["flux"].call
    made = pipe(["a red circle on grey"], num_inference_steps=2, output_type="np", **call).images
    assert made.shape == (1, 48, 48, 3) and np.isfinite(made).all()
    changed = replace(recipe, denoiser=short(3))
    with pytest.raises(ConfigError, match="other settings"):
        flux.train_flux(tmp_path, changed, progress=False)


def test_tokens_are_ordered_as_the_pipeline_orders_them():
    from diffusers import FluxPipeline

    latents = torch.randn(2, 4, 12, 12)
    assert torch.equal(flux.pack(latents), FluxPipeline._pack_latents(latents, 2, 4, 12, 12))


@pytest.mark.slow
def test_two_processes_train_a_pocket_from_nothing(tmp_path: Path):
    pytest.importorskip("sklearn")
    folder = train_pocket("dit", tmp_path, processes=2, budget=0.004, progress=False)
    assert check_pocket("dit", n=2, steps=2, folder=folder)["n"] == 2
