"""Pictures and clips: whole or not at all, the recipe inside, the right format for each."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from outpace.errors import InputError
from outpace.files import check_writable, whole_file
from outpace.pipelines.media import enlarge, read_recipe, save_media

RECIPE = {"prompt": "ein grüner Kreis, 绿色", "seed": 7, "methods": [{"method": "gated_taylor", "threshold": 0.1}]}


def ramp(*shape: int) -> np.ndarray:
    return np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def test_a_picture_comes_back_with_its_recipe(tmp_path: Path) -> None:
    media = ramp(6, 5, 3)
    path = save_media(media, tmp_path / "new" / "x.png", RECIPE)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), (media * 255).round().astype(np.uint8))
    assert read_recipe(path) == RECIPE


def test_a_grey_picture_is_saved_too(tmp_path: Path) -> None:
    with Image.open(save_media(ramp(4, 4, 1), tmp_path / "x.png", {})) as image:
        assert image.mode == "L"


def test_a_gif_keeps_frames_time_and_recipe(tmp_path: Path) -> None:
    path = save_media(ramp(5, 8, 6, 3), tmp_path / "x.gif", RECIPE, frames_per_second=10)
    with Image.open(path) as image:
        assert image.n_frames == 5 and image.size == (6, 8) and image.info["duration"] == 100
    assert read_recipe(path) == RECIPE


def test_an_mp4_plays_and_carries_the_recipe(tmp_path: Path) -> None:
    import imageio_ffmpeg

    path = save_media(ramp(9, 15, 17, 3), tmp_path / "x.mp4", RECIPE, frames_per_second=6)
    told = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path)], capture_output=True, text=True).stderr
    assert "18x16" in told and "6 fps" in told  # odd sizes are padded to even ones
    assert "gated_taylor" in told
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert frames == 9
    assert re.search(r"yuv420p", told)
    assert read_recipe(path) == RECIPE
    odd = {"prompt": "a = b; c # d \\\\ e 'f' \"g\"", "command": "outpace generate"}
    assert read_recipe(save_media(ramp(3, 8, 8, 3), tmp_path / "y.mp4", odd)) == odd
    (tmp_path / "z.mp4").write_bytes(b"no clip")
    with pytest.raises(InputError, match="carries no recipe"):
        read_recipe(tmp_path / "z.mp4")


def test_enlarge_repeats_pixels() -> None:
    assert enlarge(ramp(2, 3, 3), 4).shape == (8, 12, 3)
    assert enlarge(ramp(5, 2, 3, 3), 2).shape == (5, 4, 6, 3)
    assert np.array_equal(enlarge(ramp(2, 3, 3), 4)[::4, ::4], ramp(2, 3, 3))


def test_media_and_suffix_must_agree(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="picture"):
        save_media(ramp(4, 4, 3), tmp_path / "x.mp4", {})
    with pytest.raises(InputError, match=r"\.mp4 or \.gif"):
        save_media(ramp(2, 4, 4, 3), tmp_path / "x.png", {})
    with pytest.raises(InputError, match="not numbers"):
        save_media(np.full((4, 4, 3), np.nan), tmp_path / "x.png", {})
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as draft:
        draft.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with whole_file(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_checking_a_place_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "x.png")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        check_writable(tmp_path / "file" / "x.png")


def test_files_without_a_recipe_say_so(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "bare.png")
    with pytest.raises(InputError, match="no recipe"):
        read_recipe(tmp_path / "bare.png")
    with pytest.raises(InputError, match="cannot read"):
        read_recipe(tmp_path / "none.png")
