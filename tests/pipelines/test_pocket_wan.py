"""Moving shapes: the checker reads what was drawn, held-out captions stay unseen, and the shipped pocket obeys."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from outpace.errors import ConfigError, InputError
from outpace.pipelines.pocket import clips, wan
from outpace.pipelines.pocket.store import LARGEST_BYTES, WEIGHTS, load_pocket

SHIPPED = WEIGHTS / "wan"
needs_weights = pytest.mark.skipif(not SHIPPED.is_dir(), reason="the wan pocket's weights are not installed")
CALL = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": wan.LENGTH, "guidance_scale": 3.0}


def generate(pipe, captions: list[str], steps: int) -> list[np.ndarray]:
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(captions))]
    made = pipe(captions, num_inference_steps=steps, generator=generators, output_type="np", **CALL)
    return list(np.asarray(made.frames))


def mean_hits(media: list[np.ndarray], captions: list[str]) -> dict[str, float]:
    hits = clips.check(media, captions)
    return {name: float(np.mean([hit[name] for hit in hits])) for name in hits[0]}


def test_the_checker_reads_every_clip_that_was_drawn():
    drawn = list(clips.EVERY_CLIP)
    media = clips.render(drawn, random.Random(3))
    assert media.shape == (144, clips.SMALL.frames, clips.SMALL.side, clips.SMALL.side, 3)
    assert media.min() >= 0 and media.max() <= 1
    assert mean_hits(list(media), [clip.caption for clip in drawn]) == dict.fromkeys(clips.ATTRIBUTES, 1.0)


def test_the_checker_sees_each_wrong_word():
    said = clips.Clip(colour="red", shape="square", direction="left", speed="slowly")
    for name, values in clips.ATTRIBUTES.items():
        for value in set(values) - {getattr(said, name)}:
            shown = replace(said, **{name: value})
            (hit,) = clips.check(list(clips.render([shown], random.Random(0))), [said.caption])
            assert hit == {other: float(other != name) for other in clips.ATTRIBUTES}, f"{name} shown as {value}"


@pytest.mark.parametrize("level", [0.0, clips.BACKGROUND, 1.0])
def test_a_plain_clip_obeys_nothing_that_moves(level: float):
    plain = np.full((clips.SMALL.frames, clips.SMALL.side, clips.SMALL.side, 3), level, dtype=np.float32)
    (hit,) = clips.check([plain], ["a white square moves left quickly"])
    assert hit["direction"] == 0.0 and hit["speed"] == 0.0


def test_time_reversed_is_the_other_direction():
    clip = clips.Clip(colour="blue", shape="circle", direction="up", speed="quickly")
    backwards = clips.render([clip], random.Random(1))[0, ::-1]
    shown = clips.read(backwards)
    assert shown is not None and shown["direction"] == "down" and shown["speed"] == "quickly"


def test_held_out_captions_are_new_but_their_words_are_not():
    held_out = set(clips.prompts(24, "held_out"))
    train, calibration = set(clips.prompts(60, "train")), set(clips.prompts(60, "calibration"))
    assert len(held_out) == 24 and len(train) == len(calibration) == 60
    assert not held_out & (train | calibration) and not train & calibration
    combination = {clips.parse(caption).caption.rsplit(" ", 1)[0] for caption in held_out}
    assert not combination & {caption.rsplit(" ", 1)[0] for caption in train | calibration}
    assert {word for caption in held_out for word in caption.split()} == {w for c in train for w in c.split()}
    assert clips.prompts(50, "held_out") == (clips.prompts(24, "held_out") * 3)[:50]


def test_training_never_draws_what_is_held_out():
    assert not any(clip.held_out for clip in clips.draw(random.Random(0), 2000))


def test_the_same_generator_draws_the_same_clips():
    one, two = (wan.draw_clips(3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert one[0] == two[0] and torch.equal(one[1], two[1])


def test_slips_are_answered_with_what_is_possible():
    with pytest.raises(InputError, match=r"direction: left, right, up, down"):
        clips.parse("a red square jumps")
    with pytest.raises(InputError, match="2 clips but 1 captions"):
        clips.check([np.zeros((9, 32, 32, 3))] * 2, ["a red square moves left slowly"])
    with pytest.raises(ConfigError, match="held_out, train, calibration"):
        clips.prompts(1, "test")  # pyright: ignore[reportArgumentType]


def tiny_recipe() -> wan.WanRecipe:
    plain = wan.WanRecipe()
    return replace(
        plain,
        autoencoder=replace(plain.autoencoder, steps=2, batch=2),
        text=replace(plain.text, steps=2, batch=4),
        denoiser=replace(plain.denoiser, steps=2, batch=2),
        clips=32,
        blocks=2,
    )


def test_a_trained_folder_is_a_pipeline_and_is_not_trained_twice(tmp_path: Path):
    pipe, facts = wan.train_wan(tmp_path, tiny_recipe(), progress=False)
    pipe.set_progress_bar_config(disable=True)
    (clip,) = generate(pipe, ["a red circle moves left slowly"], steps=1)
    assert clip.shape == (clips.SMALL.frames, clips.SMALL.side, clips.SMALL.side, 3)
    assert {name: part.steps for name, part in facts["parts"].items()} == dict.fromkeys(facts["parts"], 2)
    held = torch.load(tmp_path / "latents.pt")
    again, result = wan.train_denoiser(tiny_recipe(), held, tmp_path, torch.device("cpu"), progress=False)
    assert result == facts["parts"]["denoiser"]
    for first, second in zip(pipe.transformer.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)


def test_the_recipe_is_deep_and_thin():
    model = wan.build_denoiser(wan.WanRecipe())
    assert len(model.blocks) >= 20
    assert sum(weight.numel() for weight in model.parameters()) < 2.5e6


@needs_weights
def test_the_shipped_folder_loads_in_plain_diffusers_and_is_small():
    from diffusers import WanPipeline
    from safetensors import safe_open

    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) <= LARGEST_BYTES
    with safe_open(next((SHIPPED / "transformer").glob("*.safetensors")), "pt") as held:
        assert {held.get_tensor(name).dtype for name in list(held.keys())[:5]} == {torch.bfloat16}
    pipe = WanPipeline.from_pretrained(str(SHIPPED), local_files_only=True)
    assert len(pipe.transformer.blocks) >= 20
    assert type(pipe.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"


@needs_weights
def test_the_shipped_pocket_is_guided_and_obeys_new_captions():
    pipe = load_pocket("wan")
    calls = []
    pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    captions = clips.prompts(24)[::4]
    hits = mean_hits(generate(pipe, captions, steps=16), captions)
    assert len(calls) == 2 * 16  # with the caption and without
    assert hits["direction"] >= 0.8 and hits["colour"] >= 0.8, hits


@needs_weights
@pytest.mark.slow
def test_the_shipped_pocket_passes_its_bar():
    captions = clips.prompts(48)
    hits = mean_hits(generate(load_pocket("wan"), captions, steps=50), captions)
    assert hits["direction"] >= 0.9 and hits["colour"] >= 0.9, hits
