"""What `generate` takes beside a prompt, command by command, on a tiny FLUX.2-klein, and what it refuses in a line."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from outpace.cli import main
from outpace.pipelines.media import read_recipe

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))

PROMPT, QUICK = "a cat", ("--steps", 2, "--height", 16, "--width", 16, "--device", "cpu", "--plain")
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed (extra 'lora')")


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["generate", *map(str, words)])


def tiny_klein() -> Any:
    """The pipeline of FLUX.2-klein with random weights: two double blocks, two single ones, an encoder of 28 layers."""
    import diffusers
    from hub import tokenizer
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "attention_head_dim": 16}
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, **heads, joint_attention_dim=3 * 16,
        timestep_guidance_channels=16, axes_dims_rope=[4, 4, 4, 4], guidance_embeds=False,
    )  # fmt: skip
    for weight in transformer.parameters():
        weight.data.normal_(0.0, 0.1)
    text_encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=200, hidden_size=16, intermediate_size=16, num_hidden_layers=28, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=512,
        )
    )  # fmt: skip
    vae = diffusers.AutoencoderKLFlux2(
        sample_size=32, block_out_channels=(4,), layers_per_block=1, latent_channels=1, norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
    return diffusers.Flux2KleinPipeline(
        transformer=transformer,
        text_encoder=text_encoder,
        tokenizer=tokenizer(),
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a pipeline, its half-precision variant, two pictures, a mask and, where peft is, an adapter."""
    folder = tmp_path_factory.mktemp("ten")
    pipe = tiny_klein()
    pipe.save_pretrained(folder / "klein")
    shutil.copytree(folder / "klein", folder / "half")
    for path in (folder / "half").glob("*/*.safetensors"):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    for name, shade in (("one.png", 40), ("two.png", 220)):
        Image.fromarray(np.full((64, 64, 3), shade, dtype=np.uint8)).save(folder / name)
    (folder / "broken.safetensors").write_bytes(b"nothing")
    if importlib.util.find_spec("peft") is not None:
        from peft import LoraConfig
        from peft.utils import get_peft_model_state_dict

        pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_v"], init_lora_weights=False))
        for name, weight in pipe.transformer.named_parameters():
            if "lora_" in name:
                weight.data.normal_(0.0, 1.0)
        pipe.save_lora_weights(folder, get_peft_model_state_dict(pipe.transformer), weight_name="style.safetensors")
    return folder


def picture(place: Path, folder: str, *words: object) -> np.ndarray:
    """What a command makes; it has to end well."""
    out = place / "made.png"
    out.unlink(missing_ok=True)
    ran = run(place / folder, "--prompt", PROMPT, "--out", out, *QUICK, *words)
    assert ran.exit_code == 0, ran.output
    return np.asarray(Image.open(out).convert("RGB"), dtype=np.float64)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.abs(one - other).max() <= 1


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Random weights hardly look at a picture: any change counts, as a command that is given again changes nothing."""
    return not np.array_equal(one, other)


def test_pictures_one_and_several(place: Path) -> None:
    none = picture(place, "klein")
    one = picture(place, "klein", "--image", place / "one.png")
    several = picture(place, "klein", "--image", place / "one.png", "--image", place / "two.png")
    others = picture(place, "klein", "--image", place / "two.png", "--image", place / "two.png")
    assert differ(none, one) and differ(one, several) and differ(several, others)
    assert same(several, picture(place, "klein", "--image", place / "one.png", "--image", place / "two.png"))


@needs_peft
def test_an_adapter_at_its_scale(place: Path) -> None:
    file = place / "style.safetensors"
    plain, full, half, nothing = (
        picture(place, "klein", *words)
        for words in ((), ("--lora", file), ("--lora", f"{file}:0.5"), ("--lora", f"{file}:0"))
    )
    assert differ(plain, full) and differ(full, half) and differ(half, plain)
    assert same(plain, nothing)
    twice = picture(place, "klein", "--lora", f"{file}:0.5", "--lora", f"{file}:0.5")
    assert same(twice, full)


def test_a_variant_and_a_backend_make_the_same(place: Path) -> None:
    plain = picture(place, "klein")
    assert same(plain, picture(place, "half", "--variant", "fp16"))
    assert same(plain, picture(place, "klein", "--attention", "native"))


def test_a_speedup_brings_exact_reuse_along_as_in_python(place: Path) -> None:
    words = ("--prompt", PROMPT, "--steps", 6, "--height", 16, "--width", 16, "--device", "cpu")
    ran = run(place / "klein", *words, "--speedup", 2, "--out", place / "fast.png")
    assert ran.exit_code == 0 and "exact reuse: 4 of 6 calls" in ran.stdout, ran.output
    recipe = read_recipe(place / "fast.png")
    assert "--speedup 2" in recipe["command"]
    assert [method["method"] for method in recipe["methods"]] == ["scheduled_taylor", "exact_reuse"]


@pytest.mark.slow
def test_compiled_blocks_make_the_same(place: Path) -> None:
    assert same(picture(place, "klein"), picture(place, "klein", "--compile"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--mask", "one.png"), "give the picture with --image"),
        (("--image", "one.png", "--mask", "two.png"), "Flux2KleinPipeline takes no --mask"),
        (("--image", "one.png", "--strength", 0.5), "Flux2KleinPipeline takes no --strength"),
        (("--negative-prompt", "a dog"), "Flux2KleinPipeline takes no --negative-prompt"),
        (("--image", "one.png", "--image", "none.png"), "cannot read the picture 'none.png'"),
        (("--variant", "fp16"), "no weights of the variant 'fp16'"),
        (("--offload", "model"), "the device is the cpu"),
        (("--offload", "group"), "the device is the cpu"),
        (("--attention", "nonsense"), "no backend 'nonsense'"),
        (("--attention", "flash"), "--attention flash: "),
        (("--lora", "broken.safetensors"), "adapter 'broken.safetensors'"),
        (("--lora", "none.safetensors"), "there is no such file or folder"),
        (("--quantize", "int4"), "'int4' is not"),
    ],
)
def test_what_does_not_go_is_one_line(
    words: tuple[Any, ...], says: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    if words[0] == "--lora" and importlib.util.find_spec("peft") is None:
        says = says if "no such" in says else "--lora needs peft: pip install 'outpace[lora]'"
    out = tmp_path / "x.png"
    ran = run("klein", "--prompt", PROMPT, "--out", out, *QUICK, *words)
    assert ran.exit_code == 2 and says in ran.stderr, ran.output
    assert len(ran.stderr.strip().splitlines()) == 1 and not out.exists()


def test_two_pictures_are_refused_where_one_is_taken(place: Path, tmp_path: Path) -> None:
    pictures = ("--image", place / "one.png", "--image", place / "two.png", "--strength", 0.6)
    ran = run("flux", "--prompt", "a red circle on black", *pictures, "--out", tmp_path / "x.png", "--steps", 2)
    assert ran.exit_code == 2 and "FluxImg2ImgPipeline takes one --image, not 2" in ran.stderr, ran.output
    assert len(ran.stderr.strip().splitlines()) == 1 and not (tmp_path / "x.png").exists()
