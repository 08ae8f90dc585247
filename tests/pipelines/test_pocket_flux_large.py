"""flux-large: as large as it says, read like flux, and trained and called at 1024 tokens from flux's frozen parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from outpace.pipelines.pocket import flux, flux_large, scenes
from outpace.pipelines.pocket.store import WEIGHTS

needs_flux = pytest.mark.skipif(not (WEIGHTS / "flux").is_dir(), reason="the flux pocket's weights are not installed")


def drawn(count: int, side: int) -> tuple[list[str], torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    chosen = flux.draw_scenes(count, generator, split="held_out")
    return [scene.caption for scene in chosen], scenes.render_scenes(chosen, generator, side=side)


def test_the_blocks_are_as_heavy_as_promised():
    with torch.device("meta"):
        model = flux.build_denoiser(flux_large.LARGE)
    assert model.inner_dim == 256
    assert len(model.transformer_blocks) + len(model.single_transformer_blocks) == 24
    assert 25e6 < sum(weight.numel() for weight in model.parameters()) < 35e6
    assert (flux_large.SIDE // 8) ** 2 == 1024


def test_a_larger_picture_shows_the_same_scene():
    small, large = drawn(8, scenes.SIDE)[1], drawn(8, 2 * scenes.SIDE)[1]
    shrunk = torch.nn.functional.avg_pool2d(large, 2)
    assert (shrunk - small).abs().mean() < 0.005


def test_the_checker_reads_large_pictures_and_sees_wrong_ones():
    captions, pictures = drawn(12, flux_large.SIDE)
    media = list(pictures.permute(0, 2, 3, 1).numpy())
    right = flux_large.check_large_scenes(media, captions)
    assert [hit["all"] for hit in right] == [1.0] * 12
    others = flux_large.check_large_scenes(media, captions[1:] + captions[:1])
    assert np.mean([hit["all"] for hit in others]) < 0.2


@needs_flux
def test_it_trains_and_runs_at_1024_tokens(tmp_path: Path):
    small = replace(
        flux_large.LARGE,
        denoiser=replace(flux_large.LARGE.denoiser, steps=1, batch=1),
        scenes=2,
        double_blocks=1,
        single_blocks=1,
        heads=1,
    )
    pipe, facts = flux_large.train_flux_large(tmp_path / "run", small, progress=False)
    assert facts["parts"]["denoiser"].steps == 1 and 0 < facts["share_of_recipe_trained"] < 1e-4
    tokens = []
    pipe.transformer.register_forward_pre_hook(
        lambda _module, _args, named: tokens.append(named["hidden_states"].shape[1]), with_kwargs=True
    )
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        scenes.scene_captions(1, "held_out"),
        height=flux_large.SIDE,
        width=flux_large.SIDE,
        max_sequence_length=flux.LENGTH,
        guidance_scale=1.0,
        num_inference_steps=2,
        output_type="np",
    ).images
    assert made.shape == (1, flux_large.SIDE, flux_large.SIDE, 3) and np.isfinite(made).all()
    assert tokens == [1024, 1024]
