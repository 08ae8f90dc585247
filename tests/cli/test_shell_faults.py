"""The shell's promises: what is reported as made is whole, what is stopped says how to go on, budgets are kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from forked import Forked, commanded, needs_fork

from outpace.cli import main
from outpace.errors import InputError
from outpace.pipelines.media import save_media


def run(*words: object, **more: Any) -> Result:
    return CliRunner().invoke(main, [*map(str, words)], **more)


@pytest.mark.parametrize("fps", [99999999999.0, 1e-7, 0.0, float("nan")])
def test_a_clip_that_no_player_shows_is_refused(fps: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="frames a second"):
        save_media(np.zeros((3, 8, 8, 3), np.float32), tmp_path / "x.mp4", {}, frames_per_second=fps)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_the_encoder_did_not_finish_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = subprocess.run

    def cut(command: list[str], **more: Any) -> Any:
        ran = really(command, **more)
        if command[-1].endswith(".mp4"):  # as a full disk leaves it, with an encoder that does not say so
            os.truncate(command[-1], 500)
        return ran

    monkeypatch.setattr(subprocess, "run", cut)
    with pytest.raises(InputError, match="ffmpeg could not write the clip"):
        save_media(np.random.default_rng(0).random((9, 32, 32, 3), np.float32), tmp_path / "x.mp4", {})
    assert list(tmp_path.iterdir()) == []


def test_a_converted_folder_whose_card_is_damaged_is_refused_and_one_without_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "narrow"
    words = ("--to", "width", "--order", "weights", "--start", "random", "--device", "cpu")
    ran = run("convert", "dit", *words, "--out", folder)
    assert ran.exit_code == 0, ran.output
    (folder / "card.json").write_text('{"pocket": "di')
    words = ("generate", folder, "--prompt", 3, "--steps", 2, "--device", "cpu", "--out", tmp_path / "x.png")
    broken = run(*words)
    assert broken.exit_code == 2 and "card.json" in broken.stderr
    (folder / "card.json").unlink()
    missing = run(*words)
    assert missing.exit_code == 0 and "has no card.json" in missing.stderr


def test_a_mark_at_the_beginning_of_a_prompts_file_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    from outpace.cli.options.prompt import read_texts

    (tmp_path / "prompts.txt").write_bytes("﻿a fox\na hen\n".encode())
    assert read_texts((), str(tmp_path / "prompts.txt")) == ["a fox", "a hen"]
    (tmp_path / "prompts.txt").write_bytes(b"a fox\x00\n")
    with pytest.raises(InputError, match="0x00"):
        read_texts((), str(tmp_path / "prompts.txt"))


def test_saving_a_card_in_an_installation_is_refused_before_anything_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpace.cli import cards

    monkeypatch.setattr(cards, "home", lambda: tmp_path / "site-packages" / "outpace" / "models")
    ran = run("models", "bench", "gam", "--seeds", 1, "--save")
    assert ran.exit_code == 2 and "installation" in ran.stderr


def test_stopped_a_command_says_what_is_kept(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpace.cli.contenders import study

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "load_pipeline", stop)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("3\n")
    ran = run("compare", tiny_folder, "--prompts", prompts, "--out", tmp_path / "out")
    assert ran.exit_code == 130
    assert "Stopped." in ran.stderr and str(tmp_path / "out") in ran.stderr and "goes on" in ran.stderr


def test_a_budget_is_kept_over_several_runs(tiny_folder: Path, tmp_path: Path) -> None:
    """What was measured counts as much in the run that reads it as in the one that made it."""
    from outpace.cli.contenders.bench import Bench
    from outpace.cli.contenders.curve import plain
    from outpace.cli.tuning.grid import candidate_of
    from outpace.cli.tuning.measuring import Measuring
    from outpace.evaluation import Request
    from outpace.evaluation.tune import Deadline, parse_target
    from outpace.pipelines.load import call_arguments, load_pipeline

    loaded = load_pipeline(str(tiny_folder), device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    bench = Bench(loaded=loaded, arguments=call_arguments(loaded, steps=4))
    requests = [Request(index=0, prompt=3, seed=0)]

    def begin() -> tuple[Measuring, Deadline]:
        target = parse_target(["psnr>=1"])
        made = Measuring(bench=bench, plain=plain(bench), folder=tmp_path, target=target, batch=1, identity={})
        return made, Deadline(1e9, made.clock)

    first, deadline = begin()
    candidate = candidate_of(bench, 2, ())
    told = first(candidate, requests)
    spent = deadline.spent
    bill = next(tmp_path.rglob("seconds-*.json"))
    kept = json.loads(bill.read_text())
    bill.write_text(json.dumps({**kept, "data": kept["data"] + 1000.0}))  # as if it had taken long
    second, deadline = begin()
    assert second(candidate, requests) == told
    assert deadline.spent >= 1000.0 > spent


@pytest.mark.parametrize("target", ["ssim>=2", "psnr>=-5", "psnr>=200", "ssim>=0", "latent_l2<=-1"])
def test_a_target_that_nothing_or_everything_keeps_is_refused(target: str) -> None:
    ran = run("tune", "dit", "--target", target)
    assert ran.exit_code == 2 and "--target" in ran.stderr


@pytest.mark.parametrize("methods", ["", ",", "none", "plain,converged"])
def test_a_comparison_without_a_contender_is_refused(methods: str, tmp_path: Path) -> None:
    ran = run("compare", "dit", "--methods", methods, "--out", tmp_path / "out")
    assert ran.exit_code == 2 and "names nobody to compare" in ran.stderr and not (tmp_path / "out").exists()


def test_a_picture_of_a_study_that_was_cut_is_treated_as_absent(toy_comparison: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    shutil.copytree(toy_comparison, folder)
    pictures = sorted((folder / "pictures").rglob("*.png"))
    for path in pictures[:3]:
        path.write_bytes(path.read_bytes()[:60])
    ran = run("report", folder)
    assert ran.exit_code == 0, ran.output


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    import pickle

    import torch

    from outpace.errors import ConfigError
    from outpace.pipelines.pocket.training import average_weights

    class Trap:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"settings": {}, "meant": "", "state": {}, "weights": [], "average": Trap()}, tmp_path / "run.pt")
    assert b"mkdir" in pickle.dumps(Trap())
    with pytest.raises(ConfigError, match="no checkpoint that can be read"):
        average_weights(tmp_path, "run", torch.nn.Linear(1, 1))
    assert not (tmp_path / "sprung").exists()


def test_a_pipeline_is_converted_like_it_is_accelerated(tiny_pipe: Any) -> None:
    import outpace
    from outpace.accel.experts import conversion_of

    made = outpace.convert(tiny_pipe, outpace.Conversion(width=0.5))
    assert type(made) is type(tiny_pipe) and made.vae is tiny_pipe.vae
    assert conversion_of(made.transformer) is not None and conversion_of(tiny_pipe.transformer) is None
    made.set_progress_bar_config(disable=True)
    assert len(made([1], num_inference_steps=2, output_type="np").images) == 1


def test_a_class_that_diffusers_does_not_have_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pipe"
    shutil.copytree(tiny_folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "DiTPipelin"}))
    ran = run("generate", folder, "--prompt", 3, "--device", "cpu")
    assert ran.exit_code == 2 and "'DiTPipelin'" in ran.stderr and "did you mean 'DiTPipeline'" in ran.stderr


def test_a_refusal_of_an_unknown_transformer_begins_with_what_it_is() -> None:
    import torch

    from outpace.accel import find_family
    from outpace.errors import UnsupportedModelError

    class NoSuchTransformer3DModel(torch.nn.Module):
        pass

    with pytest.raises(UnsupportedModelError, match=r"^NoSuchTransformer3DModel cannot be accelerated") as caught:
        find_family(NoSuchTransformer3DModel())
    assert "did you mean" not in str(caught.value)
    with pytest.raises(UnsupportedModelError, match=r"compile_repeated_blocks\(\)"):
        find_family(torch.compile(NoSuchTransformer3DModel()))


@needs_fork
@pytest.mark.parametrize("columns", [0, 80])
def test_a_terminal_shows_progress_however_wide_it_says_it_is(columns: int, tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    words = ["generate", "dit", "--prompt", "3", "--steps", "3", "--device", "cpu", "--out", str(tmp_path / "x.png")]
    shown = b""
    with Forked(commanded(words), tmp_path / "told", terminal=theirs) as process:
        os.close(theirs)
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
        assert process.wait() == 0 and "3/3" in shown.decode(errors="replace"), shown
