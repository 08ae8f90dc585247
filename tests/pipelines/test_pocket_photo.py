"""photo: as large as it says, of photographs that are in the wheels, read back, trained and guided at 256 tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from outpace.errors import InputError
from outpace.pipelines import POCKETS
from outpace.pipelines.pocket import flux, photo
from outpace.pipelines.pocket.photographs import CAPTIONS, SIDE, SUBJECTS, ZOOMS, check_photographs, crops, photograph

pytest.importorskip("skimage", reason="most photographs come with scikit-image")
pytest.importorskip("sklearn", reason="two photographs come with scikit-learn")


def media(numbers: list[int], seed: int) -> list[np.ndarray]:
    return list(crops(numbers, torch.Generator().manual_seed(seed)).permute(0, 2, 3, 1).numpy())


def test_it_is_as_deep_and_as_small_as_promised():
    with torch.device("meta"):
        model = flux.build_denoiser(photo.PHOTO)
    assert len(model.transformer_blocks) + len(model.single_transformer_blocks) == 16
    assert model.inner_dim == 256 and (SIDE // 8) ** 2 == 256
    assert 2 * sum(weight.numel() for weight in model.parameters()) < 40e6


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_photograph_is_in_the_wheel_and_has_room_for_every_crop(subject: str):
    picture = photograph(subject)
    assert min(picture.shape[1:]) > max(most for _, most in ZOOMS.values())
    assert 0 <= picture.min() < picture.max() <= 1 and picture.std() > 0.05


def test_crops_say_what_they_show_and_others_do_not():
    numbers = [number for number in range(len(CAPTIONS)) for _ in range(3)]
    captions = [CAPTIONS[number] for number in numbers]
    pictures = media(numbers, 7)
    assert pictures[0].shape == (SIDE, SIDE, 3)
    right = check_photographs(pictures, captions)
    assert np.mean([hit["subject"] for hit in right]) > 0.95 and np.mean([hit["zoom"] for hit in right]) > 0.8
    wrong = check_photographs(pictures, captions[3:] + captions[:3])
    assert np.mean([hit["subject"] for hit in wrong]) < 0.1
    flat = [np.full_like(picture, picture.mean()) for picture in pictures]
    assert np.mean([hit["subject"] for hit in check_photographs(flat, captions)]) < 0.4
    with pytest.raises(InputError, match="no photograph is called 'a dog'"):
        check_photographs(pictures[:1], ["a dog"])


def test_it_trains_and_runs_guided_at_256_tokens(tmp_path: Path):
    recipe = photo.PHOTO
    short = {
        name: replace(getattr(recipe, name), steps=1, batch=2) for name in ("autoencoder", "clip", "t5", "denoiser")
    }
    short["denoiser"] = replace(short["denoiser"], compiled=False)  # which takes longer than one step
    small = replace(recipe, **short, scenes=2, double_blocks=1, single_blocks=1, heads=1)
    pipe, facts = photo.train_photo(tmp_path / "run", small, progress=False)
    assert facts["parts"]["denoiser"].steps == 1 and 0 < facts["share_of_recipe_trained"] < 1e-3
    calls = []
    pipe.transformer.register_forward_pre_hook(
        lambda _module, _args, named: calls.append(tuple(named["hidden_states"].shape[:2])), with_kwargs=True
    )
    pipe.set_progress_bar_config(disable=True)
    pocket = POCKETS["photo"]
    assert pocket.given is not None
    prompts = pocket.prompts(2, "held_out")
    given = pocket.given(prompts, [0, 1])
    made = pipe(prompts, **given, **pocket.call, num_inference_steps=2, output_type="np").images
    assert made.shape == (2, SIDE, SIDE, 3) and np.isfinite(made).all()
    assert calls == [(2, 256)] * 4  # two steps, with the caption and without
    again, _ = photo.train_photo(tmp_path / "run", small, progress=False)
    kept = again.transformer.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in pipe.transformer.state_dict().items())


@pytest.mark.slow
def test_compiled_blocks_learn_the_same_and_are_plain_again(tmp_path: Path):
    small = replace(photo.PHOTO, double_blocks=1, single_blocks=1)
    draw = torch.Generator().manual_seed(0)
    shapes = {"latents": (64, 256, 32), "pooled": (64, 64), "tokens": (64, 12, 64)}
    held = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    held |= {"empty_pooled": torch.zeros(64), "empty_tokens": torch.zeros(12, 64)}
    trained, losses = {}, {}
    for compiled in (True, False):
        run = replace(small, denoiser=replace(photo.PHOTO.denoiser, steps=6, batch=4, compiled=compiled))
        model, result = flux.train_denoiser(run, held, tmp_path / str(compiled), torch.device("cpu"), progress=False)
        trained[compiled], losses[compiled] = model, result.loss
        assert all(part._compiled_call_impl is None for part in model.modules())
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)
    start = dict(flux.build_denoiser(small).named_parameters())
    for (name, one), other in zip(trained[True].named_parameters(), trained[False].parameters(), strict=True):
        moved = (other - start[name]).norm()
        assert (one - other).norm() <= 0.1 * moved + 1e-6, name
