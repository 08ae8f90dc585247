"""What a person names, and what the pipeline is then called with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import assert_same_but_rounding

from outpace.errors import InputError, UnknownNameError
from outpace.pipelines.inputs import TRUE_GUIDANCE, Inputs
from outpace.pipelines.load import (
    argument_of,
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


def test_guidance_is_the_one_that_the_transformer_heeds() -> None:
    loaded = load_pipeline("flux")
    asked = call_arguments(loaded, guidance=4.0)
    assert asked["true_cfg_scale"] == 4.0 and asked["negative_prompt"] == "" and asked["guidance_scale"] == 1.0
    assert "negative_prompt" not in call_arguments(loaded, guidance=1.0)
    told = Inputs(negative_prompt="a red square on black")
    assert told.arguments(loaded, asked)["true_cfg_scale"] == 4.0
    assert told.arguments(loaded, asked)["negative_prompt"] == "a red square on black"
    assert told.arguments(loaded, call_arguments(loaded))["true_cfg_scale"] == TRUE_GUIDANCE
    loaded.pipe.transformer.register_to_config(guidance_embeds=True)  # as FLUX.1-dev, which is distilled
    assert call_arguments(loaded, guidance=4.0)["guidance_scale"] == 4.0
    assert "true_cfg_scale" not in call_arguments(loaded, guidance=4.0)


def test_a_pocket_that_is_guided_is_guided_wherever_its_arguments_go() -> None:
    assert call_arguments(load_pipeline("photo"))["negative_prompt"] == ""


def test_a_pipeline_of_one_scale_is_guided_by_it() -> None:
    class Other:
        def __call__(self, prompt: str, negative_prompt: str = "", true_cfg_scale: float = 4.0) -> None: ...

    assert argument_of(Other(), "guidance") == "true_cfg_scale" and argument_of(Other(), "height") == "height"


def test_a_guided_batch_is_guided_as_each_of_its_prompts_alone() -> None:
    loaded = load_pipeline("flux", progress=False)
    prompts = ["a red square on black", "a green circle right of a blue circle on black"]
    asked = call_arguments(loaded, steps=3, guidance=4.0)
    together = run_pipeline(loaded, prompts, [1, 2], asked)
    for picture, prompt, seed in zip(together, prompts, (1, 2), strict=True):
        assert_same_but_rounding(picture, run_pipeline(loaded, [prompt], [seed], asked)[0])
    plain = run_pipeline(loaded, prompts, [1, 2], call_arguments(loaded, steps=3))
    assert not np.allclose(together[0], plain[0], atol=0.05)


def test_a_pocket_with_an_empty_negative_prompt_takes_another() -> None:
    loaded = load_pipeline("photo", progress=False)
    asked = Inputs(negative_prompt="brick from near").arguments(loaded, call_arguments(loaded, steps=2))
    away = run_pipeline(loaded, ["cat from near"], [1], asked)
    assert not np.allclose(away[0], run_pipeline(loaded, ["cat from near"], [1], call_arguments(loaded, steps=2))[0])


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
