"""`outpace generate` as a person uses it, on a tiny random pipeline in a folder."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from forked import Forked, needs_fork

from outpace.cli import main
from outpace.pipelines.dit3d import read_ply


def run(*words: Any) -> Result:
    return CliRunner().invoke(main, ["generate", *map(str, words)])


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_picture_with_its_recipe(tiny_folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    from outpace.pipelines.media import read_recipe

    out = tmp_path / "three.png"
    result = run(tiny_folder, "--prompt", 3, "--steps", 8, "--seed", 5, "--enlarge", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert "outpace on dit" in result.stdout and str(out) in result.stdout
    recipe = read_recipe(out)
    assert recipe["prompt"] == "3" and recipe["seed"] == 5 and recipe["arguments"]["num_inference_steps"] == 8
    assert recipe["methods"][0]["method"] == "scheduled_taylor"
    with Image.open(out) as image:
        assert image.size == (16, 16)
    assert files_in(tmp_path) == ["three.png"]


def test_the_command_in_the_recipe_makes_the_same_picture(tiny_folder: Path, tmp_path: Path) -> None:
    import shlex

    from PIL import Image

    from outpace.pipelines.media import read_recipe

    one, two = tmp_path / "one.png", tmp_path / "two.png"
    method = "gated_taylor:threshold=0.9,warmup=1"
    assert (
        run(tiny_folder, "--prompt", 7, "--steps", 9, "--guidance", 1.5, "--method", method, "--out", one).exit_code
        == 0
    )
    _, _, *words = shlex.split(read_recipe(one)["command"])
    assert run(*words, "--out", two).exit_code == 0
    with Image.open(one) as first, Image.open(two) as second:
        assert first.tobytes() == second.tobytes()


def test_a_setting_without_effect_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    words = (tiny_folder, "--prompt", 1, "--steps", 3, "--out", tmp_path / "x.png")
    assert "nothing was forecast" in run(*words, "--speedup", 1).stdout
    assert "the nearest to 2.2x" in run(*words).stdout
    assert "nothing was forecast" not in run(*words, "--method", "interval_taylor:warmup=1,cooldown=0").stdout


def test_threshold_zero_is_the_plain_picture(tiny_folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    assert run(tiny_folder, "--prompt", 1, "--steps", 6, "--plain", "--out", tmp_path / "plain.png").exit_code == 0
    exact = run(tiny_folder, "--prompt", 1, "--steps", 6, "--method", "threshold=0", "--out", tmp_path / "exact.png")
    assert exact.exit_code == 0
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "exact.png") as same:
        assert plain.tobytes() == same.tobytes()


def test_json_and_batches(tiny_folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("1\n2\n3\n")
    out = tmp_path / "pictures"
    result = run(tiny_folder, "--prompts", prompts, "--seed", "4-6", "--batch", 2, "--steps", 5, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [entry["seed"] for entry in data["files"]] == [4, 5, 6]
    assert files_in(out) == ["000-1-seed4.png", "001-2-seed5.png", "002-3-seed6.png"]
    assert data["trace"]["totals"]["calls"] == 10


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--prompt", "3", "--steps", "0"], "--steps"),
        (["--prompt", "3", "--steps", "many"], "--steps"),
        (["--prompt", "3", "--batch", "0"], "--batch"),
        (["--prompt", "3", "--guidance", "nan"], "--guidance"),
        (["--prompt", "3", "--seed", "-1"], "seeds"),
        (["--prompt", "3", "--prompt", "4", "--seed", "1,2,3"], "2 prompts but 3 seeds"),
        (["--prompt", "3", "--method", "threshold=-1"], "threshold must be a number >= 0"),
        (["--prompt", "3", "--method", "threshold=nan"], "threshold"),
        (["--prompt", "3", "--method", "order=9"], "order must be"),
        (["--prompt", "3", "--method", "thresold=1"], "did you mean 'threshold'"),
        (["--prompt", "3", "--method", "solver", "--method", "solver"], "only one"),
        (["--prompt", "3", "--preset", "blanced"], "did you mean 'balanced'"),
        (["--prompt", "3", "--preset", "fast", "--plain"], "keep one"),
        (["--prompt", "three"], "'three' is no class"),
        (["--prompt", "1000"], "0 to 999"),
        (["--prompts", "no-such-file.txt"], "No such file"),
        (["--prompt", "3", "--frames", "9"], "takes no --frames"),
        (["--prompt", "3", "--format", "mp4"], ".mp4 cannot hold"),
        (["--prompt", "3", "--device", "abacus"], "is no device"),
        (["--prompt", "3", "--stepz", "9"], "--steps"),
        ([], "--prompt"),
    ],
)
def test_slips_end_in_one_line_and_leave_no_file(
    tiny_folder: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    result = run(tiny_folder, *words, "--out", tmp_path / "new" / "folder")
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("Error: ")
    assert result.stdout == ""
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        ("fluxx", "did you mean 'flux'"),
        ("./nowhere", "no pipeline './nowhere'"),
        ("owner/model", "cannot load 'owner/model'"),
        (".", "no model_index.json"),
        ("pyproject.toml", "is a file"),
    ],
)
def test_unknown_pipelines(
    pipeline: str, says: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    result = run(pipeline, "--prompt", "a red circle", "--out", tmp_path / "x.png")
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert files_in(tmp_path) == []


def test_a_file_of_another_kind_is_no_folder(tiny_folder: Path, tmp_path: Path) -> None:
    result = run(tiny_folder, "--prompt", "3", "--out", tmp_path / "x.JPG")
    assert result.exit_code == 2 and "cannot be a .JPG file; name a .png, .mp4 or .gif" in result.stderr
    assert not list(tmp_path.iterdir())


def test_clouds_are_written_beside_their_pictures(tmp_path: Path) -> None:
    words = ("--prompt", "torus", "--prompt", "box", "--steps", "2", "--out", tmp_path)
    result = run("dit3d", *words)
    assert result.exit_code == 0 and "points beside as .ply" in result.stdout, result.output
    pictures, clouds = sorted(tmp_path.glob("*.png")), sorted(tmp_path.glob("*.ply"))
    assert [path.stem for path in pictures] == [path.stem for path in clouds] and len(clouds) == 2
    assert all(read_ply(path).shape == (256, 3) for path in clouds)


def test_unwritable_places(tiny_folder: Path, tmp_path: Path) -> None:
    wall = tmp_path / "wall"
    wall.write_text("")
    for out in (wall / "x.png", wall, "/proc/outpace/x.png"):
        result = run(tiny_folder, "--prompt", 3, "--steps", 2, "--out", out)
        assert result.exit_code == 2 and "cannot write" in result.stderr
    assert files_in(tmp_path) == ["wall"]
    assert "is one file but 2" in run(tiny_folder, "--prompt", 1, "--prompt", 2, "--out", "x.png").stderr


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    result = run(tmp_path, "--prompt", 3, "--out", tmp_path / "x.png")
    assert result.exit_code == 2 and str(tmp_path) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_existing_picture_survives_a_failure(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    out = tmp_path / "x.png"
    out.write_bytes(b"precious")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    result = run(tiny_folder, "--prompt", 3, "--steps", 2, "--plain", "--out", out)
    assert result.exit_code == 2 and "No space left" in result.stderr
    assert out.read_bytes() == b"precious"
    assert files_in(tmp_path) == ["x.png"]


def test_values_that_are_no_numbers_are_not_saved(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from outpace.pipelines import load

    monkeypatch.setattr(load, "media_of", lambda *_: [np.full((8, 8, 3), np.nan, dtype=np.float32)])
    result = run(tiny_folder, "--prompt", 3, "--out", tmp_path / "x.png")
    assert result.exit_code == 2 and "float32" in result.stderr
    assert files_in(tmp_path) == []


def test_defects_exit_1_and_show_a_traceback_only_with_debug(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpace.pipelines import load

    def broken(*_: Any) -> None:
        raise KeyError("inside")

    monkeypatch.setattr(load, "call_pipeline", broken)
    words = (tiny_folder, "--prompt", 3, "--out", tmp_path / "x.png")
    short, long = run(*words), run(*words, "--debug")
    assert short.exit_code == long.exit_code == 1
    assert len(short.stderr.strip().splitlines()) == 1 and "--debug" in short.stderr
    assert "Traceback" in long.stderr and "Traceback" not in short.stderr


def test_ctrl_c_exits_130_and_leaves_the_pictures_that_are_done(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpace.pipelines import load

    real, calls = load.call_pipeline, []

    def interrupted(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(load, "call_pipeline", interrupted)
    result = run(tiny_folder, "--prompt", 1, "--prompt", 2, "--steps", 2, "--out", tmp_path / "pictures")
    assert result.exit_code == 130
    assert "Stopped." in result.stderr and "Traceback" not in result.stderr
    assert files_in(tmp_path) == ["000-1-seed0.png"]


@needs_fork
def test_a_real_ctrl_c_in_the_middle_of_denoising(tiny_folder: Path, tmp_path: Path) -> None:
    words = ["generate", str(tiny_folder), "--prompt", "3", "--steps", "300", "--out", str(tmp_path / "x.png")]

    def interrupted() -> None:
        from diffusers import DDIMScheduler

        real, steps = DDIMScheduler.step, []

        @functools.wraps(real)
        def step(self, *args, **kwargs):
            steps.append(1)
            if len(steps) == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return real(self, *args, **kwargs)

        DDIMScheduler.step = step  # pyright: ignore[reportAttributeAccessIssue]
        main(words)

    with Forked(interrupted, tmp_path.with_name(f"{tmp_path.name}-told")) as done:
        assert done.wait() == 130, done.err
        assert done.err.strip().splitlines()[-1].startswith("Stopped. ") and "Traceback" not in done.err
    assert files_in(tmp_path) == []
