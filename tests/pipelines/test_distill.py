"""Distillation: what is recorded of a teacher, what a student learns, and what a kill or a second process changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from outpace.accel.experts import (
    BlockGroup,
    Conversion,
    Experts,
    convert,
    find_experts,
    load_transformer,
    start_experts,
    start_groups,
    weight_importance,
)
from outpace.errors import ConfigError, InputError, UnknownNameError
from outpace.pipelines.distill import Distillation, TeacherCalls, distill, record_teacher
from outpace.pipelines.load import Loaded, load_pipeline

CALL = {"num_inference_steps": 3, "guidance_scale": 1.5}
SETTINGS = Distillation(stages=(("joint", 6),), batch=4, rate=3e-3, average=0.5, checkpoint_seconds=0.0)
MIXED = Conversion(experts=Experts(), groups=(BlockGroup(first=2, size=2, active=1),))


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Loaded:
    found = load_pipeline(str(tiny_folder), device="cpu", progress=False)
    found.pipe.set_progress_bar_config(disable=True)
    # An untrained DiT has gates near nothing, so its blocks hardly matter; here they do.
    with torch.no_grad():
        for name, weight in found.pipe.transformer.named_parameters():
            if "norm1.linear" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return found


@pytest.fixture(scope="module")
def calls(loaded: Loaded) -> TeacherCalls:
    return record_teacher(loaded, [1, 2, 3], CALL, batch=2, progress=False)


def student_of(loaded: Loaded, conversion: Conversion = MIXED, seed: int = 0) -> Any:
    teacher = loaded.pipe.transformer
    needs = conversion.experts is not None or conversion.width is not None
    return convert(teacher, conversion, importance=weight_importance(teacher) if needs else None, seed=seed)


def error(student: Any, calls: TeacherCalls) -> float:
    call, wanted = calls.take(torch.arange(len(calls)))
    with torch.no_grad():
        return float((student(**call)[0] - wanted).square().mean())


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@contextmanager
def counted(module: torch.nn.Module) -> Iterator[list[int]]:
    seen: list[int] = []
    hook = module.register_forward_hook(lambda *_: seen.append(1))
    yield seen
    hook.remove()


def test_a_sample_of_a_recorded_call_gets_the_same_answer_again(loaded: Loaded, calls: TeacherCalls) -> None:
    assert len(calls) == 3 * 3 * 2  # prompts, steps, and both branches of guidance
    assert set(calls.samples) == {"hidden_states", "timestep", "class_labels"}
    assert calls.noise_levels().unique().numel() == 3
    mixed = torch.tensor([17, 0, 5, 9])  # of other prompts, at other noise levels
    call, wanted = calls.take(mixed)
    with torch.no_grad():
        torch.testing.assert_close(loaded.pipe.transformer(**call)[0], wanted, atol=1e-5, rtol=1e-4)


def test_a_teacher_is_recorded_once(loaded: Loaded, tmp_path: Path) -> None:
    with counted(loaded.pipe.transformer) as seen:
        first = record_teacher(loaded, [1, 2], CALL, folder=tmp_path, progress=False)
        once = len(seen)
        again = record_teacher(loaded, [1, 2], CALL, folder=tmp_path, progress=False)
        assert once and len(seen) == once
        other = record_teacher(loaded, [1, 3], CALL, folder=tmp_path, progress=False)
        assert len(seen) == 2 * once
    assert torch.equal(first.output, again.output) and first.fingerprint == again.fingerprint != other.fingerprint
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == sorted(f"calls-{c.fingerprint}.pt" for c in (first, other))
    for file in files:
        file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="it is damaged; remove it"):
        record_teacher(loaded, [1, 2], CALL, folder=tmp_path, progress=False)


def test_one_prompt_is_too_few_to_tell_samples_apart(loaded: Loaded) -> None:
    with pytest.raises(InputError, match="at least 2 prompts, not 1"):
        record_teacher(loaded, [1], CALL, progress=False)


@pytest.mark.parametrize(
    "conversion",
    [
        MIXED,
        Conversion(width=0.375),
        Conversion(dropped=(2, 4)),
        Conversion(experts=Experts(layout="1S12E0A")),
        Conversion(experts=Experts(layout="0S8E3A2N"), borders=(500.0,)),
        Conversion(experts=Experts(layout="0S8E3A2W"), borders=(500.0,)),
        Conversion(left_out=((2, 4), (2,)), borders=(500.0,)),
    ],
    ids=["mixtures", "width", "depth", "shared expert only", "by noise", "weights by noise", "blocks by noise"],
)
def test_every_student_comes_nearer_to_its_teacher(
    loaded: Loaded, calls: TeacherCalls, tmp_path: Path, conversion: Conversion
) -> None:
    student, dense = student_of(loaded, conversion), weights(loaded.pipe.transformer)
    before = error(student, calls)
    (result,) = distill(
        loaded.pipe.transformer,
        student,
        calls,
        replace(SETTINGS, stages=(("joint", 48),)),
        tmp_path / "run",
        progress=False,
    )
    assert result.steps == 48 and error(student, calls) < 0.9 * before
    assert all(map(torch.equal, dense, weights(loaded.pipe.transformer)))
    student.save_pretrained(tmp_path / "saved")
    assert error(load_transformer(tmp_path / "saved"), calls) == error(student, calls)


def test_stages_train_what_they_say(loaded: Loaded, calls: TeacherCalls, tmp_path: Path) -> None:
    student = student_of(loaded)

    def parts() -> dict[str, list[torch.Tensor]]:
        layers = find_experts(student).values()
        groups = [*student.transformer_blocks[2:4], student.block_routers]
        return {
            "routed": [w for layer in layers for w in weights(layer.experts) + weights(layer.router)],
            "shared": [w for layer in layers for w in weights(layer.shared)],
            "groups": [w for module in groups for w in weights(module)],
            "first": weights(student.transformer_blocks[0].attn1),
        }

    changed = {"shared": {"shared", "groups", "first"}, "experts": {"routed", "groups"}, "groups": {"routed", "shared"}}
    changed["groups"] |= {"groups"}
    before = parts()
    names = ("shared", "experts", "groups")
    for number, name in enumerate(names):
        stages = tuple((done, 2) for done in names[: number + 1])
        student = student_of(loaded)
        distill(
            loaded.pipe.transformer,
            student,
            calls,
            replace(SETTINGS, stages=stages),
            tmp_path / name,
            progress=False,
        )
        after = parts()
        moved = {key for key in before if not all(map(torch.equal, before[key], after[key]))}
        assert moved == set().union(*(changed[done] for done in names[: number + 1]))
    assert all(layer.active == 2 for layer in find_experts(student).values())
    assert all(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.parametrize(
    "conversion",
    [
        MIXED,
        Conversion(experts=Experts(layout="1S12E2A2W"), borders=(500.0,)),
        Conversion(experts=Experts(layout="1S12E2A2W"), left_out=((2, 4), (2,)), borders=(500.0,)),
    ],
    ids=["mixtures", "weights by noise", "weights and blocks by noise"],
)
def test_a_run_that_was_interrupted_ends_like_one_that_was_not(
    loaded: Loaded, calls: TeacherCalls, tmp_path: Path, conversion: Conversion
) -> None:
    settings = replace(SETTINGS, stages=(("shared", 3), ("joint", 3)))
    whole, parts = student_of(loaded, conversion), None
    distill(loaded.pipe.transformer, whole, calls, settings, tmp_path / "whole", progress=False)
    for _ in range(4):
        parts = student_of(loaded, conversion)
        distill(loaded.pipe.transformer, parts, calls, settings, tmp_path / "parts", progress=False, stop_after=2)
    assert parts is not None and all(map(torch.equal, weights(whole), weights(parts)))


def test_experts_and_groups_start_better_than_by_chance(loaded: Loaded, calls: TeacherCalls) -> None:
    some = [calls.take(torch.arange(len(calls)))[0]]
    for conversion, start in (
        (Conversion(experts=Experts(scaling="one")), start_experts),
        (Conversion(groups=(BlockGroup(first=1, size=4, active=2),)), start_groups),
    ):
        errors = [error(student_of(loaded, conversion, seed), calls) for seed in range(6)]
        fitted = student_of(loaded, conversion)
        start(fitted, some)
        assert error(fitted, calls) < sum(errors) / len(errors)


def test_units_dealt_anew_are_the_same_model_with_all_experts_on(loaded: Loaded, calls: TeacherCalls) -> None:
    student = student_of(loaded, Conversion(experts=Experts(scaling="one")))
    start_experts(student, [calls.take(torch.arange(8))[0]])
    for layer in find_experts(student).values():
        layer.active = "all"
    assert error(student, calls) < 1e-10
    with pytest.raises(InputError, match="at least one call"):
        start_experts(student, [])
    with pytest.raises(ConfigError, match="has no groups of blocks"):
        start_groups(student, [])
    with pytest.raises(ConfigError, match="has no experts to deal"):
        start_experts(loaded.pipe.transformer, [])


def test_slips_are_answered_before_anything_is_trained(loaded: Loaded, calls: TeacherCalls, tmp_path: Path) -> None:
    teacher, student = loaded.pipe.transformer, student_of(loaded)
    settings = dict(dict(teacher.config), num_layers=5)
    other = type(teacher)(**{key: value for key, value in settings.items() if not key.startswith("_")})
    narrow = student_of(loaded, Conversion(width=0.5))
    by_noise = student_of(loaded, Conversion(experts=Experts(layout="1S12E2A2N")))
    for wrong, right, stages, says in (
        (student, student, "joint", "is converted itself; give the dense model"),
        (teacher, teacher, "joint", "is dense, so there is nothing to distil"),
        (other, student, "joint", r"is no teacher of this ConvertedDiTTransformer2DModel.*num_layers differs"),
        (teacher, narrow, "experts", "trains experts and ConvertedDiTTransformer2DModel has none"),
        (teacher, by_noise, "experts", "are chosen by the noise level; train them with joint"),
        (teacher, narrow, "groups", "trains groups of blocks and"),
    ):
        with pytest.raises(ConfigError, match=says):
            distill(wrong, right, calls, replace(SETTINGS, stages=((stages, 2),)), tmp_path, progress=False)
    with pytest.raises(UnknownNameError, match="joint"):
        Distillation(stages=(("jiont", 3),))
    with pytest.raises(ConfigError, match="at least one step"):
        Distillation(stages=(("joint", 0),))
    with pytest.raises(ConfigError, match="a batch of 6 samples cannot be computed in 4 equal parts"):
        Distillation(batch=6, parts=4)
    assert not list(tmp_path.iterdir())


def test_checkpoints_of_another_teacher_or_half_of_one_are_refused(
    loaded: Loaded, calls: TeacherCalls, tmp_path: Path
) -> None:
    distill(loaded.pipe.transformer, student_of(loaded), calls, SETTINGS, tmp_path, progress=False, stop_after=1)
    file = tmp_path / "0-joint.pt"
    held = file.read_bytes()
    with pytest.raises(ConfigError, match="was trained towards something else"):
        distill(
            loaded.pipe.transformer,
            student_of(loaded),
            replace(calls, fingerprint="other"),
            SETTINGS,
            tmp_path,
            progress=False,
        )
    assert file.read_bytes() == held
    file.write_bytes(held[: len(held) // 2])
    with pytest.raises(ConfigError, match="is no checkpoint that can be read; remove it"):
        distill(loaded.pipe.transformer, student_of(loaded), calls, SETTINGS, tmp_path, progress=False)
    assert file.read_bytes() == held[: len(held) // 2]


SHELL = [sys.executable, "-m", "outpace", "distill"]
QUICK = ["--prompts", "PROMPTS", "--steps", "3", "--batch", "4", "--parts", "2", "--every", "0", "--device", "cpu"]


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def folders(tiny_folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with prompts and a converted pipeline; its parameter is what `outpace convert` is asked for."""
    from click.testing import CliRunner

    from outpace.cli import main

    (tmp_path / "prompts.txt").write_text("1\n2\n3\n")
    words = [
        "convert",
        str(tiny_folder),
        "--prompts",
        str(tmp_path / "prompts.txt"),
        "--steps",
        "2",
        *getattr(request, "param", ("--layout", "1S12E2A")),
    ]
    made = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "moe")])
    assert made.exit_code == 0, made.output
    return tmp_path


def command(folders: Path, out: str, steps: int) -> list[str]:
    words = [str(folders / "prompts.txt") if word == "PROMPTS" else word for word in QUICK]
    return [str(folders / "moe"), *words, "--stage", f"joint:{steps}", "--out", str(folders / out)]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system with SIGKILL")
def test_a_killed_distillation_goes_on_where_it_was(folders: Path, root: Path) -> None:
    import time

    running = subprocess.Popen([*SHELL, *command(folders, "killed", 200)], env=environment(root))
    checkpoint = folders / "killed.training" / "0-joint.pt"
    for _ in range(6000):
        if checkpoint.is_file() and torch.load(checkpoint, weights_only=False)["state"]["step"] >= 5:
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    done = torch.load(checkpoint, weights_only=False)["state"]["step"]
    assert 5 <= done < 200 and not (folders / "killed").exists()
    for out in ("killed", "whole"):
        finished = subprocess.run(
            [*SHELL, *command(folders, out, 200), "--json"], env=environment(root), capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stderr
    one, other = (load_transformer(folders / out) for out in ("killed", "whole"))
    assert all(map(torch.equal, weights(one), weights(other)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "folders",
    [
        ("--layout", "1S12E2A"),
        ("--layout", "0S16E6A2W"),  # spread over layers and noise levels
        ("--to", "depth", "--drop", "2", "--levels", "2"),
        ("--to", "depth", "--drop", "2", "--levels", "2", "--stand-ins"),
    ],
    ids=["experts", "spread", "blocks by noise", "stand-ins"],
    indirect=True,
)
def test_two_processes_of_accelerate_make_what_one_makes(folders: Path, root: Path) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "outpace"]
    for start, out in (([*launch, "distill"], "two"), (SHELL, "one")):
        finished = subprocess.run(
            [*start, *command(folders, out, 20)], env=environment(root), capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stderr
        assert finished.stdout.count("Distilled on") == 1
    one, two = (load_transformer(folders / out) for out in ("one", "two"))
    for ours, theirs in zip(weights(one), weights(two), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
