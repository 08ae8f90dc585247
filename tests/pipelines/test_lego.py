"""LEGO: a brick is a plain DiT, windows join what they split, skipped bricks are not called, and any size is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from closeness import assert_same_but_rounding
from diffusers import (
    DDIMScheduler,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from torch import nn

import outpace
from outpace.errors import ConfigError, InputError, UnknownNameError
from outpace.kernels.tiles import Tiles
from outpace.pipelines import load_pocket
from outpace.pipelines.lego import SIZES, LegoPipeline, LegoTransformer2DModel, lego_loss, skip_brick
from outpace.pipelines.load import call_arguments, load_pipeline, read_prompts, run_pipeline
from outpace.pipelines.pocket.recipes import POCKETS

TINY: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8, "sample_size": 8, "num_embeds_ada_norm": 10}
STACK: dict[str, Any] = {"brick_sizes": (4, 8, 8), "patch_sizes": (2, 4, 2), "num_layers": (1, 1, 2)}
LINEAR: dict[str, Any] = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


def opened(model: Any) -> Any:
    """`model` with every weight drawn: at its start a LEGO model answers nothing."""
    torch.manual_seed(0)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> LegoTransformer2DModel:
    return opened(LegoTransformer2DModel(**TINY, **STACK))


@pytest.fixture
def pipe(model: LegoTransformer2DModel) -> LegoPipeline:
    return quiet(model, EDMEulerScheduler())


def quiet(model: LegoTransformer2DModel, scheduler: Any) -> LegoPipeline:
    made = LegoPipeline(model, scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def latents(pipe: LegoPipeline, labels: list[int] | None = None, **call: Any) -> torch.Tensor:
    labels = [1, 2] if labels is None else labels
    call = {"num_inference_steps": 5, "generator": generators(len(labels)), **call}
    return pipe(labels, output_type="latent", **call).images


@pytest.mark.parametrize(
    ("name", "millions"),
    [("S-PG-64", 33.7), ("L-PG-64", 501), ("XL-PG-32", 729), ("XL-PR-32", 729), ("XL-U-32", 1261)],
)
def test_published_sizes_have_their_number_of_weights(name: str, millions: float):
    with torch.device("meta"):
        model = LegoTransformer2DModel.named(name)
    assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(millions, rel=2e-3)


def test_stacks_grow_refine_or_do_both():
    sizes = {name: SIZES[name]["brick_sizes"] for name in SIZES}
    assert list(sizes["S-PG-64"]) == sorted(sizes["S-PG-64"]) == list(sizes["S-PR-64"])[::-1]
    assert sizes["XL-U-32"] == (32, 16, 4, 16, 32)
    with pytest.raises(UnknownNameError, match="XL-PG-32"):
        LegoTransformer2DModel.named("XL-PG-31")


def test_one_brick_of_the_picture_is_a_plain_dit():
    settings = {**TINY, "patch_size": 2, "in_channels": 3, "num_layers": 3}
    plain: Any = opened(DiTTransformer2DModel(**settings, norm_eps=1e-6))
    for block in plain.transformer_blocks[1:]:  # diffusers keeps one embedding of time and class in every block
        block.norm1.emb.load_state_dict(plain.transformer_blocks[0].norm1.emb.state_dict())
    lego: Any = LegoTransformer2DModel(**TINY, brick_sizes=(8,), patch_sizes=(2,), num_layers=(3,)).eval()
    brick, held = lego.bricks[0], plain.state_dict()
    with torch.no_grad():
        brick.patches.weight.zero_()
        brick.patches.weight[:, :3] = held["pos_embed.proj.weight"]
        brick.patches.bias.copy_(held["pos_embed.proj.bias"])
    lego.condition.load_state_dict(plain.transformer_blocks[0].norm1.emb.state_dict())
    blocks = {name.removeprefix("transformer_blocks."): weight for name, weight in held.items()}
    missing, strange = brick.transformer_blocks.load_state_dict(blocks, strict=False)
    assert not missing and not [name for name in strange if name[0].isdecimal() and ".norm1.emb." not in name]
    brick.proj_out_1.load_state_dict(plain.proj_out_1.state_dict())
    brick.proj_out_2.load_state_dict(plain.proj_out_2.state_dict())
    x, times, labels = torch.randn(2, 3, 8, 8), torch.tensor([0.3, -0.9]), torch.tensor([4, 7])
    with torch.no_grad():
        expected = plain(x, timestep=times, class_labels=labels).sample
        assert (lego(x, times, labels).sample - expected).abs().max() < 1e-5
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (13, 20), (9, 8)])
@pytest.mark.parametrize(("overlap", "shift"), [(0, (0, 0)), (4, (0, 0)), (4, (3, 6)), (7, (1, 0))])
def test_windows_give_the_picture_back(size: tuple[int, int], overlap: int, shift: tuple[int, int]):
    picture = torch.randn(2, 3, *size)
    windows = Tiles(sides=(8, 8), overlap=(overlap, overlap), shift=shift)
    parts = windows.split(picture)
    assert parts.shape == (2 * windows.count(size), 3, 8, 8)
    assert (windows.join(parts, size) - picture).abs().max() < 1e-6


def test_what_overlaps_is_averaged_and_no_edge_stands_out():
    windows = Tiles(sides=(8, 8), overlap=(4, 4))
    parts = windows.split(torch.zeros(1, 1, 8, 16))
    levels = torch.arange(len(parts), dtype=torch.float32).view(-1, 1, 1, 1).expand_as(parts)
    row = windows.join(levels, (8, 16))[0, 0, 0]
    assert row[0] == 0 and row[-1] == 2 and bool((row.diff() >= 0).all())
    assert row.diff().max() < 0.5, "windows beside each other differ by 1"


def test_a_small_brick_sees_its_own_sub_image_only():
    model = opened(LegoTransformer2DModel(**TINY, brick_sizes=(4,), patch_sizes=(2,), num_layers=(2,)))
    x = torch.randn(1, 3, 8, 8)
    other = x.clone()
    other[..., 4:, :] += 1
    with torch.no_grad():
        change = (model(x, torch.tensor(0.1)).sample - model(other, torch.tensor(0.1)).sample).abs()
    assert change[..., :4, :].max() == 0 and change[..., 4:, :].min() > 0


def test_every_brick_is_trained_and_gradients_reach_the_first():
    model = LegoTransformer2DModel(**TINY, **STACK).initialise().eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    clean = torch.linspace(-1, 1, 8).expand(16, 3, 8, 8)
    losses = []
    for step in range(25):
        loss = lego_loss(model, clean, torch.zeros(16, dtype=torch.long), torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert all(weight.grad is not None for brick in model.bricks for weight in brick.parameters())


def calls_of(pipe: LegoPipeline, *methods: Any, **call: Any) -> list[int]:
    counts = [0] * len(pipe.transformer.bricks)

    def count(index: int) -> Any:
        def hook(*_: Any) -> None:
            counts[index] += 1

        return hook

    hooks = [brick.register_forward_hook(count(i)) for i, brick in enumerate(pipe.transformer.bricks)]
    if methods:
        with outpace.accelerate(pipe, *methods):
            latents(pipe, **call)
    else:
        latents(pipe, **call)
    for hook in hooks:
        hook.remove()
    return counts


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.4, 1.0])
def test_a_skipped_brick_is_not_called(pipe: LegoPipeline, guidance: float, share: float):
    call = {"num_inference_steps": 20, "guidance_scale": guidance}
    assert calls_of(pipe, **call) == [20, 20, 20]
    late = skip_brick(pipe, share, steps=20)
    assert calls_of(pipe, late, **call) == [20, 20, round(20 * (1 - share))]
    early = skip_brick(pipe, share, steps=20, brick=0)
    assert calls_of(pipe, early, **call) == [round(20 * (1 - share)), 20, 20]


def test_which_steps_go_without_a_brick_is_said_by_the_noise(pipe: LegoPipeline):
    with outpace.accelerate(pipe, skip_brick(pipe, 0.25, steps=50)) as run:
        latents(pipe, num_inference_steps=8)
    assert [call.blocks / 2 for call in run.trace.calls] == [3.0] * 6 + [2.0] * 2
    assert torch.equal(latents(pipe), latents(quiet(pipe.transformer, EDMEulerScheduler())))


def test_a_run_without_its_last_brick_is_a_run_of_the_stack_before_it(pipe: LegoPipeline):
    with outpace.accelerate(pipe, outpace.BrickSkipping(schedule="2", reuse=False)):
        skipped = latents(pipe, height=12, width=16)
    short = LegoTransformer2DModel(**TINY, **{name: value[:2] for name, value in STACK.items()}).eval()
    short.load_state_dict(pipe.transformer.state_dict(), strict=False)
    assert torch.equal(latents(quiet(short, EDMEulerScheduler()), height=12, width=16), skipped)


@pytest.mark.parametrize("method", [outpace.BrickSkipping(), outpace.GatedTaylor(threshold=0)])
def test_nothing_left_out_is_bit_identical(pipe: LegoPipeline, method: Any):
    plain = latents(pipe, guidance_scale=2.0, width=20)
    with outpace.accelerate(pipe, method):
        assert torch.equal(latents(pipe, guidance_scale=2.0, width=20), plain)


def test_forecasts_and_skipping_go_together(pipe: LegoPipeline):
    forecast = outpace.IntervalTaylor(interval=2, warmup=2)
    with outpace.accelerate(pipe, forecast, skip_brick(pipe, 0.4, steps=20)) as run:
        latents(pipe, num_inference_steps=20)
    blocks = [call.blocks / 2 for call in run.trace.calls]
    assert set(blocks[:12]) == {0.0, 3.0} and set(blocks[12:]) == {0.0, 2.0}


@pytest.mark.parametrize("schedule", ["3@0..0.5", "2@0..1.5", "2@0-0.4"])
def test_a_schedule_for_other_bricks_is_refused(pipe: LegoPipeline, schedule: str):
    with pytest.raises(ConfigError):
        outpace.accelerate(pipe, outpace.BrickSkipping(schedule=schedule))
    outpace.accelerate(pipe, outpace.BrickSkipping(schedule="1@0..0.5")).restore()


@pytest.mark.parametrize(
    "scheduler",
    [
        EDMDPMSolverMultistepScheduler(),
        HeunDiscreteScheduler(**LINEAR, use_karras_sigmas=True),
        DPMSolverMultistepScheduler(**LINEAR, use_karras_sigmas=True),
        DPMSolverMultistepScheduler(**LINEAR, use_karras_sigmas=True, prediction_type="v_prediction"),
        DDIMScheduler(**LINEAR, clip_sample=False, timestep_spacing="trailing"),
    ],
    ids=lambda scheduler: f"{type(scheduler).__name__}-{scheduler.config.get('prediction_type')}",
)
def test_schedulers_agree_where_steps_are_small(pipe: LegoPipeline, scheduler: Any):
    exact = latents(pipe, [1], num_inference_steps=60)
    made = latents(quiet(pipe.transformer, scheduler), [1], num_inference_steps=40)
    assert (made - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_a_scheduler_that_does_not_fit_is_refused(model: LegoTransformer2DModel):
    for scheduler in (
        FlowMatchEulerDiscreteScheduler(),
        EDMEulerScheduler(sigma_data=1.0),
        DDIMScheduler(prediction_type="sample"),
    ):
        with pytest.raises(ConfigError, match="this model"):
            latents(quiet(model, scheduler))


def test_pictures_of_any_size_do_not_depend_on_their_batch(pipe: LegoPipeline):
    for size, overlap in (((8, 8), None), ((16, 16), 0), ((13, 24), 4), ((9, 8), 7)):
        call = {"height": size[0], "width": size[1], "overlap": overlap}
        both = latents(pipe, **call)
        assert both.shape == (2, 3, *size) and bool(both.isfinite().all())
        assert_same_but_rounding(latents(pipe, [2], generator=[generators(2)[1]], **call), both[1:])


def test_bad_calls_are_refused(pipe: LegoPipeline):
    calls: list[tuple[dict[str, Any], str]] = [
        ({"labels": [10]}, "from 0 to 9"),
        ({"labels": ["three"]}, "no class"),
        ({"labels": []}, "one number a picture"),
        ({"height": 7}, "8 pixels or more"),
        ({"overlap": 8}, "from 0 to 7"),
        ({"generator": generators(1)}, "one a label"),
    ]
    for call, said in calls:
        with pytest.raises(InputError, match=said):
            latents(pipe, **call)
    with pytest.raises(InputError, match="output_type"):
        pipe([1], output_type="video")
    for changes in ({"patch_sizes": (3, 4, 2)}, {"brick_sizes": (4, 8)}, {"brick_sizes": (5, 8, 8)}):
        with pytest.raises(ConfigError, match="brick"):
            LegoTransformer2DModel(**{**TINY, **STACK, **changes})
    for share, brick in ((1.5, None), (0.5, 3)):
        with pytest.raises(ConfigError, match=r"from 0 to 1|bricks 0 to 2"):
            skip_brick(pipe, share, brick=brick)


def test_a_saved_pipeline_is_the_same(pipe: LegoPipeline, tmp_path: Path):
    pipe.save_pretrained(tmp_path)
    again = load_pocket(tmp_path)
    assert type(again) is LegoPipeline and torch.equal(latents(again), latents(pipe))
    loaded = load_pipeline(str(tmp_path), progress=False)
    prompts = read_prompts(loaded, ["3", "7"])
    wide = run_pipeline(loaded, prompts, [1, 2], call_arguments(loaded, steps=2, width=20, guidance=2.0))
    assert [picture.shape for picture in wide] == [(8, 20, 3)] * 2 and wide[0].dtype == np.float32


def test_a_latent_model_decodes_with_its_vae():
    from diffusers import AutoencoderKL

    model = opened(LegoTransformer2DModel(**TINY, **STACK, in_channels=4))
    settings: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    vae = AutoencoderKL(**settings, norm_num_groups=4, latent_channels=4, sample_size=16).eval()
    pipe = LegoPipeline(model, EDMEulerScheduler(), vae)
    pipe.set_progress_bar_config(disable=True)
    assert pipe([1], num_inference_steps=2, width=24, output_type="np").images.shape == (1, 16, 24, 3)
    with pytest.raises(InputError, match="in steps of 2"):
        pipe([1], width=25)


def test_the_recipe_trains_and_makes_digits(tmp_path: Path):
    pytest.importorskip("sklearn")
    pipe, facts = POCKETS["lego"].train(tmp_path, budget=1 / 5000, progress=False)
    assert facts["parts"]["denoiser"].steps == 1
    assert [brick.size for brick in pipe.transformer.bricks] == [4, 16, 32]
    assert [len(brick.transformer_blocks) for brick in pipe.transformer.bricks] == [2, 4, 6]
