"""Pipelines with converted transformers: written whole, loaded by name, run like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import assert_same_but_rounding

from outpace.accel import AdaSpa, GatedTaylor, accelerate
from outpace.accel.experts import Conversion, Experts, conversion_of, find_experts
from outpace.errors import ConfigError, InputError
from outpace.pipelines.convert import convert_pipeline, write_pipeline
from outpace.pipelines.load import Loaded, load_pipeline, run_pipeline

EXPERTS = Conversion(experts=Experts())
CALL = {"num_inference_steps": 2, "guidance_scale": 1.0}


@pytest.fixture
def converted(tiny_folder: Path) -> Loaded:
    loaded = load_pipeline(str(tiny_folder), device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    convert_pipeline(loaded, EXPERTS, prompts=[1, 2], arguments=CALL)
    return loaded


def test_a_converted_pipeline_is_written_loaded_and_run(converted: Loaded, tmp_path: Path) -> None:
    write_pipeline(converted, tmp_path / "moe", {"order": "taylor"})
    index = (tmp_path / "moe" / "model_index.json").read_text()
    assert "ConvertedDiTTransformer2DModel" in index and "_name_or_path" not in index
    again = load_pipeline(str(tmp_path / "moe"), device="cpu", progress=False)
    again.pipe.set_progress_bar_config(disable=True)
    assert len(find_experts(again.pipe.transformer)) == 6
    before, after = (dict(loaded.pipe.transformer.named_parameters()) for loaded in (converted, again))
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    first, second = (run_pipeline(loaded, [3], [0], CALL)[0] for loaded in (converted, again))
    assert_same_but_rounding(first, second)
    assert [file.name for file in tmp_path.iterdir()] == ["moe"]
    assert json.loads((tmp_path / "moe" / "card.json").read_text())["order"] == "taylor"


def test_a_pipeline_is_converted_by_noise_level(tiny_folder: Path, tmp_path: Path) -> None:
    loaded = load_pipeline(str(tiny_folder), device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    by_noise = Conversion(experts=Experts(layout="1S12E2A2N"))
    with pytest.raises(ConfigError, match="order by taylor"):
        convert_pipeline(loaded, by_noise, order="weights")
    convert_pipeline(loaded, by_noise, prompts=[1, 2], arguments={**CALL, "num_inference_steps": 4})
    write_pipeline(loaded, tmp_path / "by-noise", {})
    again = load_pipeline(str(tmp_path / "by-noise"), device="cpu", progress=False)
    again.pipe.set_progress_bar_config(disable=True)
    settings = conversion_of(again.pipe.transformer)
    assert settings is not None and len(settings.borders) == 1 and 0 < settings.borders[0] < 999
    first, second = (run_pipeline(one, [3], [0], CALL)[0] for one in (loaded, again))
    assert_same_but_rounding(first, second)


def test_a_pocket_stays_one_when_it_is_converted(tmp_path: Path) -> None:
    loaded = load_pipeline("dit", device="cpu", progress=False)
    convert_pipeline(loaded, EXPERTS, order="weights")
    write_pipeline(loaded, tmp_path / "moe", {})
    again = load_pipeline(str(tmp_path / "moe"), device="cpu", progress=False)
    assert again.pocket is not None and again.pocket.name == "dit" and again.steps == loaded.steps


def test_what_is_there_already_is_left_as_it_is(converted: Loaded, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")
    with pytest.raises(InputError, match="exists already and is left as it is"):
        write_pipeline(converted, tmp_path, {})
    with pytest.raises(InputError, match="exists already"):
        write_pipeline(converted, tmp_path / "mine", {})
    assert (tmp_path / "mine").read_text() == "text"


def test_a_write_that_fails_leaves_nothing(converted: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(converted.pipe), "save_pretrained", full)
    with pytest.raises(InputError, match="No space left on device; choose another --out"):
        write_pipeline(converted, tmp_path / "moe", {})
    assert not list(tmp_path.iterdir())


def test_a_pipeline_with_a_half_written_transformer_is_refused(converted: Loaded, tmp_path: Path) -> None:
    write_pipeline(converted, tmp_path / "moe", {})
    weights = tmp_path / "moe" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot load the weights in"):
        load_pipeline(str(tmp_path / "moe"), device="cpu", progress=False)
    (tmp_path / "moe" / "transformer" / "config.json").unlink()
    with pytest.raises(InputError, match=r"it has no config\.json"):
        load_pipeline(str(tmp_path / "moe"), device="cpu", progress=False)


def test_slips_are_refused_before_anything_changes(tiny_folder: Path) -> None:
    loaded = load_pipeline(str(tiny_folder), device="cpu", progress=False)
    dense = loaded.pipe.transformer
    with pytest.raises(InputError, match="needs prompts"):
        convert_pipeline(loaded, EXPERTS)
    with pytest.raises(ConfigError, match="ordered by taylor, weights, random, not by 'size'"):
        convert_pipeline(loaded, EXPERTS, order="size")
    with pytest.raises(ConfigError, match="64 hidden units do not divide"):
        convert_pipeline(loaded, Conversion(experts=Experts(layout="1S11E2A")), order="weights")
    assert loaded.pipe.transformer is dense


@pytest.mark.parametrize("name", ["dit", "flux"])
def test_a_converted_pocket_is_forecast_and_made_sparse_in_one_call(name: str) -> None:
    loaded = load_pipeline(name, device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    convert_pipeline(loaded, EXPERTS, order="weights")
    call = {**loaded.call, "num_inference_steps": 8}
    prompts = loaded.pocket.prompts(1, "calibration")
    plain = run_pipeline(loaded, prompts, [0], call)[0]
    sparse = AdaSpa(recall=0.8, min_tokens=1, min_gain=0.0, block=16)
    with accelerate(loaded.pipe, GatedTaylor(threshold=1e6, gate="paper", warmup=3, cooldown=1), sparse) as run:
        made = run_pipeline(loaded, prompts, [0], call)[0]
    assert np.isfinite(made).all() and not np.array_equal(made, plain)
    assert run.trace.totals()["forecast"] > 0 and run.trace.attention.calls.total() > 0
    assert np.array_equal(run_pipeline(loaded, prompts, [0], call)[0], plain)
