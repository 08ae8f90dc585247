"""VDT: it begins as the image model, its masks are never empty, and what is known comes out bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from closeness import assert_same_but_rounding
from diffusers import DiTTransformer2DModel
from torch import nn

import outpace
from outpace.errors import ConfigError, InputError, MeasurementError, UnknownNameError
from outpace.pipelines import load_pocket
from outpace.pipelines.load import Loaded, Source, call_arguments, run_pipeline
from outpace.pipelines.pocket.moving_digits import check_moving_digits, draw_moving_digits, known_clips
from outpace.pipelines.pocket.recipes import POCKETS
from outpace.pipelines.pocket.vdt import build_scheduler
from outpace.pipelines.vdt import TASKS, VDTPipeline, VDTTransformer3DModel, draw_mask, draw_masks, masked_error

TINY = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 3, "num_layers": 3, "sample_size": 16,
        "patch_size": 4, "num_embeds_ada_norm": 1}  # fmt: skip
STEPS = 4


def opened(model: Any) -> Any:
    """`model` with every weight drawn: gates and output start at zero, where anything equals anything."""
    torch.manual_seed(0)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pipe() -> VDTPipeline:
    made = VDTPipeline(opened(VDTTransformer3DModel(**TINY, num_frames=8)), build_scheduler())
    made.set_progress_bar_config(disable=True)
    return made


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_a_vdt_of_an_image_model_is_that_model_frame_by_frame():
    image = opened(DiTTransformer2DModel(**TINY))
    video = VDTTransformer3DModel.from_image(image, num_frames=8).eval()
    clips, times = torch.randn(2, 3, 6, 16, 16), torch.tensor([3, 800])
    labels = torch.tensor([0, 1])
    with torch.no_grad():
        frames = [image(clips[:, :, t], timestep=times, class_labels=labels).sample for t in range(6)]
        assert (video(clips, times, labels).sample - torch.stack(frames, 2)).abs().max() < 1e-5
        assert video(clips, times, labels).sample.abs().max() > 0.1


def test_zeroed_attention_over_time_equals_the_image_model_on_any_weights():
    video = opened(VDTTransformer3DModel(**TINY))
    image = DiTTransformer2DModel(**TINY).eval()
    image.load_state_dict({k: v for k, v in video.state_dict().items() if ".temporal_" not in k})
    clips, time = torch.randn(1, 3, 5, 16, 16), torch.tensor([40])
    label = torch.zeros(1, dtype=torch.long)
    frames = torch.stack([image(clips[:, :, t], timestep=time, class_labels=label).sample for t in range(5)], 2)
    assert (video(clips, time).sample - frames).abs().max() > 1e-3
    for block in video.transformer_blocks:
        for weight in block.temporal_attention.to_out.parameters():
            nn.init.zeros_(weight)
    assert (video(clips, time).sample - frames).abs().max() < 1e-5


def test_the_order_of_frames_matters_and_their_number_is_free():
    video = opened(VDTTransformer3DModel(**TINY))
    clips = torch.randn(1, 3, 4, 16, 16)
    order = torch.tensor([2, 0, 3, 1])
    plain, shuffled = video(clips, torch.tensor(5)).sample, video(clips[:, :, order], torch.tensor(5)).sample
    assert (plain[:, :, order] - shuffled).abs().max() > 1e-3
    assert video(torch.randn(2, 3, 11, 16, 16), torch.tensor(5)).sample.shape == (2, 3, 11, 16, 16)


@pytest.mark.parametrize("task", list(TASKS))
def test_no_mask_is_empty_and_whole_patches_are_known(task: str):
    for seed in range(60):
        frames = 2 + seed % 15
        mask = draw_mask(task, (frames, 16, 8), torch.Generator().manual_seed(seed), patch=4)
        assert mask.shape == (frames, 16, 8) and set(mask.unique().tolist()) <= {0.0, 1.0}
        assert mask.any() and bool((mask == 0).any()) == TASKS[task].knows, (task, frames)
        patches = mask.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)
        assert torch.equal(patches.amin(3), patches.amax(3))


def test_masks_ask_what_their_names_say():
    def made(task: str, frames: int = 8) -> list[int]:
        return draw_mask(task, (frames, 4, 4), torch.Generator().manual_seed(0)).amin((1, 2)).int().tolist()

    assert made("predict") == [0, 0, 0, 0, 1, 1, 1, 1]
    assert made("backward") == [1, 1, 1, 1, 0, 0, 0, 0]
    assert made("interpolate") == [0, 1, 1, 1, 0, 1, 1, 0]
    assert sum(made("animate")) == 7 and sum(made("unconditional")) == 8
    drawn = draw_masks(400, (8, 16, 16), torch.Generator().manual_seed(0), patch=4)
    in_space = (drawn.amax((3, 4)) != drawn.amin((3, 4))).flatten(1).any(1).float().mean()
    assert 0.13 < in_space < 0.27, "a fifth of training has holes in space"


def test_the_error_does_not_depend_on_how_much_is_masked():
    masks = draw_masks(12, (8, 8, 8), torch.Generator().manual_seed(1))
    target = torch.zeros(12, 3, 8, 8, 8)
    assert masked_error(target + 0.5, target, masks) == pytest.approx(0.25)
    assert masked_error(target + 9 * (1 - masks), target, masks) == 0.0
    with pytest.raises(MeasurementError, match="0 everywhere"):
        masked_error(target, target, torch.zeros_like(masks))


def test_every_task_keeps_what_is_known_bit_for_bit(pipe: VDTPipeline):
    clips = torch.rand(len(TASKS), 8, 16, 16, 3)
    made = pipe(frames=clips, task=list(TASKS), num_inference_steps=STEPS, generator=generators(len(TASKS)))
    frames, known = torch.from_numpy(made.frames), torch.from_numpy(made.masks) == 0
    assert torch.equal(frames[known], clips[known])
    assert np.isfinite(made.frames).all() and not torch.equal(frames, clips)
    assert [bool(k.any()) for k in known] == [task.knows for _, task in TASKS.items()]


def test_what_a_mask_covers_is_not_looked_at(pipe: VDTPipeline):
    clips, mask = torch.rand(1, 8, 16, 16, 3), [0, 0, 1, 1, 1, 0, 1, 1]
    other = clips.clone()
    other[:, torch.tensor(mask) == 1] = 0.25
    one, two = (
        pipe(frames=c, mask=mask, num_inference_steps=STEPS, generator=generators(1)).frames for c in (clips, other)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("shape", [(8,), (2, 8), (8, 16, 16), (2, 8, 16, 16)])
def test_masks_of_any_shape_mean_the_same(pipe: VDTPipeline, shape: tuple[int, ...]):
    clips = torch.rand(2, 8, 16, 16, 3)
    first = torch.zeros(8)
    first[5:] = 1
    mask = first if len(shape) <= 2 else first[:, None, None]
    made = pipe(frames=clips, mask=mask.expand(shape), num_inference_steps=2, generator=generators(2))
    plain = pipe(frames=clips, mask=first, num_inference_steps=2, generator=generators(2))
    np.testing.assert_array_equal(made.frames, plain.frames)


def test_a_clip_does_not_depend_on_its_batch(pipe: VDTPipeline):
    clips = torch.rand(3, 8, 16, 16, 3)
    tasks = ["complete", "animate", "predict"]
    call = {"num_inference_steps": STEPS}
    together = pipe(frames=clips, task=tasks, generator=generators(3), **call).frames
    alone = pipe(frames=clips[1], task=tasks[1], generator=[torch.Generator().manual_seed(1)], **call).frames
    assert_same_but_rounding(together[1], alone[0])


def test_threshold_0_is_the_plain_pipeline_bit_for_bit(pipe: VDTPipeline):
    def made() -> np.ndarray:
        call = {"frames": known_clips([1, 2]), "task": ["predict", "complete"], "num_inference_steps": 10}
        return pipe(**call, generator=generators(2)).frames

    plain = made()
    with outpace.accelerate(pipe, outpace.GatedTaylor(threshold=0.0)) as run:
        np.testing.assert_array_equal(made(), plain)
    assert run.trace.totals()["forecast"] == 0
    with outpace.accelerate(pipe, outpace.IntervalTaylor(interval=2, warmup=1)) as run:
        assert not np.array_equal(made(), plain)
    assert run.trace.totals()["forecast"] > 0


def test_a_saved_pipeline_makes_the_same(pipe: VDTPipeline, tmp_path: Path):
    pipe.save_pretrained(tmp_path)
    again = load_pocket(tmp_path)
    assert type(again) is VDTPipeline
    call = {"task": "unconditional", "num_frames": 4, "num_inference_steps": 2}
    for name, weight in pipe.transformer.state_dict().items():
        assert torch.equal(again.transformer.state_dict()[name], weight)
    made, expected = (one(**call, generator=generators(1)).frames for one in (again, pipe))
    assert_same_but_rounding(made, expected)


def test_the_command_line_gives_tasks_their_clips(pipe: VDTPipeline):
    loaded = Loaded(pipe=pipe, source=Source(name="vdt", kind="pocket"), pocket=POCKETS["vdt"], prompt_argument="task")
    made = run_pipeline(loaded, ["predict", "unconditional"], [3, 4], call_arguments(loaded, steps=2))
    np.testing.assert_array_equal(made[0][:4], known_clips([3])[0][:4])
    assert made[1].shape == (8, 16, 16, 3)
    with pytest.raises(InputError, match="takes no --guidance"):
        call_arguments(loaded, guidance=2.0)


def test_moving_digits_are_read_back():
    clips, _ = draw_moving_digits(12, torch.Generator().manual_seed(5))
    hits = check_moving_digits(list(clips.numpy()), ["predict"] * 12)
    assert all(hit == {"digit": 1.0, "same": 1.0} for hit in hits)
    noise = check_moving_digits([np.random.default_rng(0).random((8, 16, 16, 3))], ["predict"])
    assert noise[0]["digit"] == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"task": "predict"}, "starts from a clip"),
        ({"task": "predict", "mask": [1] * 8}, "exclude each other"),
        ({"frames": np.zeros((8, 16, 16, 3)), "mask": [0, 1]}, "a mask of shape"),
        ({"frames": np.zeros((8, 16, 16, 3)), "mask": [0.5] * 8}, "nothing between"),
        ({"frames": np.zeros((8, 16, 16, 1)), "task": "predict"}, "expected"),
        ({"frames": np.full((8, 16, 16, 3), 255.0), "task": "predict"}, "0..1"),
        ({"frames": np.full((8, 16, 16, 3), np.nan), "task": "predict"}, "0..1"),
        ({"frames": np.zeros((8, 15, 16, 3)), "task": "predict"}, "steps of 4"),
        ({"frames": np.zeros((1, 16, 16, 3)), "task": "predict"}, "2 frames or more"),
        ({"frames": np.zeros((3, 8, 16, 16, 3)), "task": ["predict", "animate"]}, "2 tasks for 3 clips"),
        ({"frames": np.zeros((8, 16, 16, 3)), "task": "predict", "num_frames": 4}, "leave them out"),
        ({"task": "unconditional", "output_type": "mp4"}, "no output_type"),
        ({"task": "unconditional", "generator": [torch.Generator(), torch.Generator()]}, "2 generators for 1"),
        ({"num_frames": 1}, "2 frames or more"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(pipe: VDTPipeline, call: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        pipe(num_inference_steps=2, **call)


def test_other_slips_are_answered_too():
    with pytest.raises(UnknownNameError, match="did you mean 'predict'"):
        draw_mask("predicts", (4, 4, 4), torch.Generator())
    with pytest.raises(ConfigError, match="2 frames or more"):
        draw_mask("predict", (1, 4, 4), torch.Generator())
    with pytest.raises(ConfigError, match="do not divide"):
        VDTTransformer3DModel(**{**TINY, "sample_size": 15})
    with pytest.raises(ConfigError, match="no image DiT"):
        VDTTransformer3DModel.from_image(DiTTransformer2DModel(**TINY, attention_bias=False))
