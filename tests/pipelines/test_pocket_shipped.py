"""The shipped pockets: ordinary diffusers folders, small, and obedient to prompts they were not trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from outpace.errors import ConfigError, InputError, UnknownNameError
from outpace.pipelines import POCKETS, check_pocket, load_pocket, pocket_path
from outpace.pipelines.parts import OWN
from outpace.pipelines.pocket.store import LARGER_BYTES, LARGEST_BYTES, WEIGHTS

SHIPPED = sorted(name for name in POCKETS if (WEIGHTS / name).is_dir())
OURS = {name for name in SHIPPED if json.loads((WEIGHTS / name / "model_index.json").read_text())["_class_name"] in OWN}
"""Shipped pipelines of classes that only outpace has."""
DEEP = {"dit": 20, "flux": 24, "wan": 20}
"""Blocks of the pockets whose forecasts are measured; `wan-long` is for attention, and a clip of it takes minutes."""


def test_the_small_pockets_are_shipped():
    assert {*DEEP, "wan-long"} <= set(SHIPPED)


@pytest.mark.filterwarnings("ignore:.*torch_dtype.*:FutureWarning")
@pytest.mark.parametrize("name", sorted({*SHIPPED} - OURS))
def test_plain_diffusers_loads_the_folder(name: str):
    import diffusers

    folder = pocket_path(name)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    pipe = getattr(diffusers, index["_class_name"]).from_pretrained(folder, torch_dtype=torch.bfloat16)
    stored = {weight.dtype for weight in pipe.transformer.parameters()}
    assert torch.bfloat16 in stored and stored <= {torch.bfloat16, torch.float32}  # Wan keeps a few parts in float32
    blocks = sum(
        len(getattr(pipe.transformer, stack, ()))
        for stack in ("blocks", "transformer_blocks", "single_transformer_blocks")
    )
    assert blocks >= DEEP.get(name, 10)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_folder_is_small_and_tells_nothing_about_where_it_was_made(name: str):
    files = [file for file in pocket_path(name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LARGER_BYTES.get(name, LARGEST_BYTES)
    for file in files:
        if file.suffix in (".json", ".md"):
            text = file.read_text(encoding="utf-8")
            assert "_name_or_path" not in text and "/tmp" not in text and "/home" not in text, file


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_says_what_was_measured(name: str):
    folder = pocket_path(name)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    text = (folder / "README.md").read_text(encoding="utf-8")
    check = card["check"]
    assert check["split"] == "held_out" and check["n"] >= 32
    for key, bar in POCKETS[name].bar.items():
        assert check["accuracy"][key] >= bar
        assert f"| {key} | {check['accuracy'][key]:.3f} | {bar:.2f} |" in text
    for part, run in card["training"]["parts"].items():
        assert part in text and run["cpu_seconds"] > 0 and f"{run['steps']:,}" in text
    assert card["training"]["hardware"] in text
    if name == "dit":
        assert "CC BY 4.0" in text


@pytest.mark.parametrize("name", DEEP)
def test_it_obeys_a_few_prompts(name: str):
    result = check_pocket(name, n=6, steps=16)
    assert set(POCKETS[name].bar) <= set(result["accuracy"])
    for key in POCKETS[name].bar:
        assert result["accuracy"][key] >= 0.65, result


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_it_meets_its_bar(name: str):
    result = check_pocket(name, n=96) if name in DEEP else check_pocket(name, n=16, steps=20, batch=1)
    for key, bar in POCKETS[name].bar.items():
        assert result["accuracy"][key] >= bar, result


def test_true_guidance_works_on_flux():
    pocket = POCKETS["flux"]
    pipe = load_pocket("flux")
    prompts = pocket.prompts(4, "held_out")

    def generate(**guidance: object) -> list[np.ndarray]:
        generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
        arguments = {"generator": generators, "num_inference_steps": 12, "output_type": "np", **pocket.call}
        return list(pipe(prompts, **arguments, **guidance).images)

    plain, guided = generate(), generate(negative_prompt=[""] * 4, true_cfg_scale=3.0)
    assert not np.array_equal(plain[0], guided[0])
    assert np.mean([hit["colour"] for hit in pocket.check(guided, prompts)]) >= 0.75


def test_other_prompts_make_other_pictures_from_the_same_noise():
    pipe = load_pocket("dit")
    made = pipe([3, 8], guidance_scale=4.0, num_inference_steps=12, output_type="np",
                generator=[torch.Generator().manual_seed(0) for _ in range(2)]).images  # fmt: skip
    assert np.abs(made[0] - made[1]).mean() > 0.02
    assert pipe.get_label_ids(["7"]) == [7]


def test_prompts_are_the_same_at_every_call_and_splits_differ():
    for name, pocket in POCKETS.items():
        for split in ("held_out", "train", "calibration"):
            assert pocket.prompts(12, split)[:5] == pocket.prompts(5, split), name
        assert pocket.prompts(12, "held_out") != pocket.prompts(12, "train"), name


def test_an_unknown_pocket_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'flux'"):
        load_pocket("fluxx")


def test_a_pocket_without_weights_says_how_to_make_them():
    missing = [name for name in POCKETS if name not in SHIPPED]
    assert missing
    with pytest.raises(InputError, match=f"outpace pocket train {missing[0]}"):
        load_pocket(missing[0])


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"no model_index\.json"):
        load_pocket(tmp_path)


def test_no_prompts_measure_nothing():
    with pytest.raises(ConfigError, match="at least 1"):
        check_pocket("dit", n=0)
