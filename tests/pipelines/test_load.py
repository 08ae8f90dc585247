"""What a person names, and what the pipeline is then called with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import assert_same_but_rounding

from outpace.errors import InputError, UnknownNameError
from outpace.pipelines.load import (
    call_arguments,
    choose_device,
    find_pipeline,
    load_pipeline,
    makes_clips,
    read_prompts,
    run_pipeline,
)


def test_a_pocket_a_folder_and_a_hub_id(tiny_folder: Path) -> None:
    assert find_pipeline("dit").kind == "pocket"
    assert find_pipeline(str(tiny_folder)).kind == "folder"
    assert find_pipeline("owner/model-1.0").kind == "hub"
    for name in ("ditt", "./none", "a/b/c", "", "-x/y"):
        with pytest.raises((UnknownNameError, InputError), match=r"pocket|folder"):
            find_pipeline(name)


def test_a_folder_is_loaded_as_diffusers_would(tiny_folder: Path) -> None:
    loaded = load_pipeline(str(tiny_folder), dtype=torch.bfloat16, device="cpu")
    assert type(loaded.pipe).__name__ == "DiTPipeline" and loaded.pipe.transformer.dtype == torch.bfloat16
    assert loaded.prompt_argument == "class_labels" and loaded.pocket is None and not makes_clips(loaded)


def test_samples_do_not_depend_on_their_batch(tiny_folder: Path) -> None:
    loaded = load_pipeline(str(tiny_folder), progress=False)
    arguments = call_arguments(loaded, steps=3, guidance=None)
    together = run_pipeline(loaded, [1, 2, 3], [7, 8, 9], arguments)
    alone = run_pipeline(loaded, [2], [8], arguments)
    assert together[1].shape == (8, 8, 3) and together[1].dtype == np.float32
    assert_same_but_rounding(together[1], alone[0])
    assert not np.allclose(together[0], together[1])


def test_arguments_have_diffusers_names(tiny_folder: Path) -> None:
    loaded = load_pipeline(str(tiny_folder))
    assert call_arguments(loaded, steps=9, guidance=2.0) == {"num_inference_steps": 9, "guidance_scale": 2.0}
    assert call_arguments(loaded)["num_inference_steps"] == 50
    with pytest.raises(InputError, match="takes no --height"):
        call_arguments(loaded, height=64)


def test_classes_are_numbers_or_known_names(tiny_folder: Path) -> None:
    loaded = load_pipeline(str(tiny_folder))
    loaded.pipe.labels = {"white shark": 2}
    assert read_prompts(loaded, ["7", " 8 ", "white shark"]) == [7, 8, 2]
    for text in ("-1", "1000", "1.5", "shark", ""):
        with pytest.raises(InputError, match="no class"):
            read_prompts(loaded, [text])


def test_a_pocket_refuses_words_it_never_saw() -> None:
    loaded = load_pipeline("dit")
    assert read_prompts(loaded, ["0", "9"]) == [0, 9]
    for text in ("10", "three", "", "3 4"):
        with pytest.raises(InputError, match=r"dit|class"):
            read_prompts(loaded, [text])


def test_what_a_pipeline_refuses_is_an_input_error(tiny_folder: Path) -> None:
    def refuse(**_: object) -> None:
        raise ValueError("`height` has to be divisible by 16")

    loaded = dataclasses.replace(load_pipeline(str(tiny_folder)), pipe=refuse)
    with pytest.raises(InputError, match="refused: `height` has to be divisible"):
        run_pipeline(loaded, [1], [7], {"num_inference_steps": 2})
    with pytest.raises(InputError, match="2 prompts but 1 seeds"):
        run_pipeline(loaded, [1, 2], [7], {})


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="is no device"):
        choose_device("abacus")
    with pytest.raises(InputError, match="doctor"):
        choose_device("cuda:99")
