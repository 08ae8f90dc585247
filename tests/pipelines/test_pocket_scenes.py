"""Scenes: the checker reads what was drawn and sees each wrong word, and held-out pairs stay unseen."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from outpace.errors import ConfigError, InputError
from outpace.pipelines.pocket import scenes
from outpace.pipelines.pocket.scenes import Scene, Thing

SCENE = Scene(
    first=Thing(colour="red", shape="circle"),
    relation="left of",
    second=Thing(colour="blue", shape="square"),
    ground="grey",
)


def picture_of(scene: Scene, seed: int = 0, side: int = scenes.SIDE) -> np.ndarray:
    (picture,) = scenes.render_scenes([scene], torch.Generator().manual_seed(seed), side=side)
    return picture.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_checker_reads_every_scene_that_was_drawn(split: scenes.Split):
    source = random.Random(1)
    drawn = [scenes.draw_scene(source, split=split) for _ in range(300)]
    pictures = scenes.render_scenes(drawn, torch.Generator().manual_seed(2))
    assert pictures.shape == (300, 3, 48, 48)
    assert 0 <= pictures.min() and pictures.max() <= 1
    read = scenes.check_scenes(list(pictures.permute(0, 2, 3, 1).numpy()), [scene.caption for scene in drawn])
    assert all(hits["all"] == 1.0 for hits in read)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("a green circle left of a blue square on grey", {"colour": 0.5, "shape": 1.0}),
        ("a red triangle left of a blue circle on grey", {"colour": 1.0, "shape": 0.0}),
        ("a red circle right of a blue square on grey", {"colour": 0.0, "shape": 0.0, "place": 1.0}),
        ("a red circle above a blue square on grey", {"place": 0.0, "colour": 0.0}),
        ("a red circle left of a blue square on black", {"ground": 0.0, "colour": 1.0}),
        ("a red circle on grey", {"count": 0.0, "place": 0.0}),
    ],
)
def test_the_checker_sees_each_wrong_word(said: str, expected: dict[str, float]):
    hits = scenes.check_scene(picture_of(SCENE), said)
    assert hits["all"] == 0.0
    assert {key: hits[key] for key in expected} == expected


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_an_empty_picture_shows_no_thing(level: float):
    hits = scenes.check_scene(np.full((48, 48, 3), level, dtype=np.float32), SCENE.caption)
    assert hits["count"] == hits["place"] == hits["colour"] == hits["shape"] == hits["all"] == 0.0


def test_noise_is_no_scene():
    noise = np.random.default_rng(0).random((48, 48, 3)).astype(np.float32)
    assert scenes.check_scene(noise, SCENE.caption)["all"] == 0.0


def test_a_larger_picture_is_the_same_scene():
    large = picture_of(SCENE, side=192)
    small = large.reshape(48, 4, 48, 4, 3).mean((1, 3))
    assert np.abs(small - picture_of(SCENE)).mean() < 0.01


def test_a_caption_says_all_there_is_in_a_scene():
    source = random.Random(3)
    for _ in range(200):
        scene = scenes.draw_scene(source)
        assert scenes.parse_caption(scene.caption) == scene


def test_both_orders_of_a_pair_are_one_picture_and_one_side_of_the_split():
    other = Scene(first=SCENE.second, relation="right of", second=SCENE.first, ground="grey")  # type: ignore[arg-type]
    assert np.array_equal(picture_of(SCENE), picture_of(other))
    assert SCENE.labels() == other.labels()
    for first in range(12):
        for second in range(12):
            things = [Thing(colour=list(scenes.COLOURS)[n // 3], shape=scenes.SHAPES[n % 3]) for n in (first, second)]
            pair = replace(SCENE, first=things[0], second=things[1])
            assert pair.held_out == replace(SCENE, first=things[1], second=things[0]).held_out


def test_held_out_pairs_are_never_in_the_other_splits_yet_every_word_is():
    held_out = scenes.scene_captions(200, "held_out")
    assert scenes.scene_captions(5, "held_out") == held_out[:5]
    for split in ("train", "calibration"):
        known = scenes.scene_captions(2000, split)
        assert all(not scenes.parse_caption(caption).held_out for caption in known)
        assert not set(known) & set(held_out)
        assert {word for caption in held_out for word in caption.split()} <= {w for c in known for w in c.split()}


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a dog",
        "a red circle",
        "a red circle on pink",
        "a mauve circle on grey",
        "a red circle on a blue background",
    ],
)
def test_a_caption_of_something_else_is_refused(caption: str):
    with pytest.raises(InputError, match="describes no scene"):
        scenes.parse_caption(caption)


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="held_out"):
        scenes.scene_captions(1, "test")  # type: ignore[arg-type]
