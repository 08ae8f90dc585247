"""`generate` and `compare` take what the Python API takes: pictures, masks, adapters, 8-bit weights, backends."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from outpace.cli import main
from outpace.cli.options.pipeline import OPTIONS
from outpace.pipelines.media import read_recipe
from outpace.pipelines.setup import Setup, read_lora, set_up

CIRCLE = "a blue circle above a yellow circle on black"
SQUARE = "a red square left of a green square on white"
QUICK = ("--steps", 6, "--device", "cpu", "--plain")


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture that was made by nobody: a dark frame with a white middle."""
    pixels = np.zeros((48, 48, 3), dtype=np.uint8)
    pixels[12:36, 12:36] = 255
    Image.fromarray(pixels).save(tmp_path / "start.png")
    return tmp_path / "start.png"


def made(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)


def test_a_picture_to_start_from_is_kept_the_more_the_less_the_strength(picture: Path, tmp_path: Path) -> None:
    start = made(picture)
    distances = []
    for strength in (0.2, 1.0):
        out = tmp_path / f"{strength}.png"
        ran = run(
            "generate", "flux", "--prompt", SQUARE, "--image", picture, "--strength", strength, "--out", out, *QUICK
        )
        assert ran.exit_code == 0, ran.output
        distances.append(np.abs(made(out) - start).mean())
    assert distances[0] < distances[1]


def test_the_recipe_makes_the_picture_again_and_knows_the_one_it_started_from(picture: Path, tmp_path: Path) -> None:
    import shlex

    out = tmp_path / "x.png"
    ran = run("generate", "flux", "--prompt", SQUARE, "--image", picture, "--strength", 0.5, "--out", out, *QUICK)
    assert ran.exit_code == 0, ran.output
    recipe = read_recipe(out)
    assert list(recipe["inputs"]) == [str(picture)] and recipe["arguments"]["strength"] == 0.5
    words = shlex.split(recipe["command"])[1:]
    again = run(*words, "--device", "cpu", "--out", tmp_path / "y.png")
    assert again.exit_code == 0, again.output
    assert np.abs(made(out) - made(tmp_path / "y.png")).max() <= 1


def test_what_is_masked_out_stays(picture: Path, tmp_path: Path) -> None:
    mask = np.zeros((48, 48), dtype=np.uint8)
    mask[:, 24:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "x.png"
    words = ("generate", "flux", "--prompt", SQUARE, "--image", picture, "--mask", tmp_path / "mask.png")
    ran = run(*words, "--strength", 1.0, "--out", out, *QUICK)
    assert ran.exit_code == 0, ran.output
    change = np.abs(made(out) - made(picture)).mean(-1)
    assert change[:, :20].mean() < change[:, 28:].mean()


def test_a_negative_prompt_is_used(tmp_path: Path) -> None:
    for out, more in ((tmp_path / "a.png", ()), (tmp_path / "b.png", ("--negative-prompt", CIRCLE))):
        ran = run("generate", "flux", "--prompt", SQUARE, *more, "--out", out, *QUICK)
        assert ran.exit_code == 0, ran.output
    assert np.abs(made(tmp_path / "a.png") - made(tmp_path / "b.png")).max() > 5


def test_a_backend_of_attention_is_set_and_makes_the_same(tmp_path: Path) -> None:
    for out, more in ((tmp_path / "a.png", ()), (tmp_path / "b.png", ("--attention", "native"))):
        assert run("generate", "flux", "--prompt", SQUARE, *more, "--out", out, *QUICK).exit_code == 0
    assert np.abs(made(tmp_path / "a.png") - made(tmp_path / "b.png")).max() <= 2


def test_a_variant_is_loaded_where_the_folder_has_it(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny_folder, folder)
    for path in folder.glob("*/*.safetensors"):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    words = ("generate", folder, "--prompt", 3, "--out", tmp_path / "x.png", *QUICK)
    without = run(*words)
    assert without.exit_code == 2 and "add --variant fp16" in without.stderr
    assert run(*words, "--variant", "fp16").exit_code == 0
    other = run(*words, "--variant", "bf16")
    assert other.exit_code == 2 and "no weights of the variant 'bf16'" in other.stderr


def test_compare_takes_them_too_and_goes_on_where_it_stopped(picture: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{SQUARE}\n", encoding="utf-8")
    words = ("compare", "flux", "--prompts", prompts, "--steps", 4, "--methods", "steps-2", "--converged-steps", 0,
             "--timing-prompts", 0, "--image", picture, "--strength", 0.8, "--device", "cpu",
             "--out", tmp_path / "out")  # fmt: skip
    ran = run(*words, "--json")
    assert ran.exit_code == 0, ran.output
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.json")}
    assert run(*words, "--json").exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.json")}
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert "--image" in results["command"]


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed (extra 'int8')")
def test_weights_are_quantised(tmp_path: Path) -> None:
    """The picture is another, as no weight is what it was, and near; a forecast goes with it."""
    found = []
    for more in (("--plain",), ("--plain", "--quantize", "int8"), ("--speedup", 2, "--quantize", "int8")):
        ran = run("generate", "flux", "--prompt", SQUARE, "--out", tmp_path / "x.png", *QUICK[:-1], *more)
        assert ran.exit_code == 0, ran.output
        found.append(made(tmp_path / "x.png"))
    plain, quantised, fast = found
    assert 0 < np.abs(quantised - plain).mean() < 1.0, "levels of 255"
    assert 0 < np.abs(fast - quantised).mean() < 8.0


class Noted:
    """A pipeline that notes how it was put on a device."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.calls.append((name, args or tuple(kwargs.items())))


@pytest.mark.parametrize(
    ("offload", "asked"),
    [
        (None, ("to", (torch.device("cuda"),))),
        ("model", ("enable_model_cpu_offload", (("device", torch.device("cuda")),))),
        (
            "group",
            ("enable_group_offload", (("onload_device", torch.device("cuda")), ("offload_type", "leaf_level"))),
        ),
    ],
)
def test_on_a_gpu_offloading_is_what_diffusers_does(offload: str | None, asked: tuple[str, Any]) -> None:
    pipe = Noted()
    set_up(pipe, Setup(offload=offload), torch.device("cuda"))
    assert pipe.calls == [asked]


@pytest.mark.parametrize(("package", "option", "value"), [("torchao", "--quantize", "int8"), ("peft", "--lora", "a/b")])
def test_what_is_not_installed_is_named_with_how_to_get_it(
    package: str, option: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpace.pipelines import setup

    really = importlib.util.find_spec
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None if name == package else really(name))
    ran = run("generate", "flux", "--prompt", SQUARE, option, value)
    assert ran.exit_code == 2 and package in ran.stderr and "pip install 'outpace[" in ran.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("dit", "--prompt", 3, "--image", "start.png"), "DiTPipeline takes no --image"),
        (("dit", "--prompt", 3, "--negative-prompt", "x"), "DiTPipeline takes no --negative-prompt"),
        (("dit", "--prompt", 3, "--strength", 0.5), "give the picture with --image"),
        (("dit", "--prompt", 3, "--mask", "start.png"), "give the picture with --image"),
        (("dit", "--prompt", 3, "--variant", "fp16"), "have no variants"),
        (("dit", "--prompt", 3, "--offload", "model"), "the device is the cpu"),
        (("dit", "--prompt", 3, "--offload", "group"), "the device is the cpu"),
        (("dit", "--prompt", 3, "--attention", "nonsense"), "no backend 'nonsense'"),
        (("dit", "--prompt", 3, "--lora", "nowhere.safetensors"), "no such file"),
        (("dit", "--prompt", 3, "--lora", "start.png:x"), "cannot read the scale"),
        (("flux", "--prompt", SQUARE, "--image", "nowhere.png"), "cannot read the picture"),
        (("flux", "--prompt", SQUARE, "--image", "text.png"), "is no picture"),
        (("flux", "--prompt", SQUARE, "--image", "start.png", "--strength", 2), "--strength"),
        (("flux", "--prompt", SQUARE, "--image", "start.png", "--batch", 2), "leave --batch out"),
    ],
)
def test_what_does_not_go_is_refused_in_one_line(
    words: tuple[Any, ...], says: str, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    ran = run("generate", *words, "--out", "x.png", "--device", "cpu")
    if "--lora" in words and importlib.util.find_spec("peft") is None and "x" not in words[-1]:
        says = says if says in ran.stderr else "peft"
    assert ran.exit_code == 2 and says in ran.stderr, ran.output
    assert len(ran.stderr.strip().splitlines()) == 1 and not (tmp_path / "x.png").exists()


def test_an_adapter_and_its_scale_are_read(tmp_path: Path) -> None:
    (tmp_path / "a:b.safetensors").touch()
    assert read_lora("owner/style:0.5") == ("owner/style", 0.5)
    assert read_lora(str(tmp_path / "a:b.safetensors")) == (str(tmp_path / "a:b.safetensors"), 1.0)


def test_both_commands_take_every_one() -> None:
    import click

    for name in ("generate", "compare"):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        flags = {flag for option in command.params for flag in option.opts}
        assert {flag for flag, _ in OPTIONS} <= flags
