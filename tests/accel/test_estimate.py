"""Counts on the meta device against published sizes, independent formulas and a table worked out by hand."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import TINY_MODELS
from torch.utils.flop_counter import FlopCounterMode

import outpace
from outpace.accel.estimate import (
    DEVICES,
    MODELS,
    SIGNATURES,
    Estimate,
    break_even,
    count_cost,
    estimate,
    even_share,
    find_device,
    worthwhile,
)
from outpace.accel.estimate.predict import RIVALS
from outpace.accel.estimate.signature import Latent
from outpace.accel.estimate.source import build_on_meta
from outpace.errors import ConfigError, InputError, UnknownNameError, UnsupportedModelError


@cache
def at(model: str, height: int, width: int, frames: int | None = None) -> Estimate:
    """The estimate as the paper runs it: a fifth of the steps dense, the second search without dense attention."""
    return estimate(model, height=height, width=width, frames=frames, device="h200", warmup=0.2, fresh=False)


HUNYUAN = ("hunyuanvideo", 720, 1280, 129)
WAN14_720 = ("wan2.1-14b", 720, 1280, 81)
WAN14_480 = ("wan2.1-14b", 480, 832, 81)
WAN13_480 = ("wan2.1-1.3b", 480, 832, 81)
FLUX_1024 = ("flux.1", 1024, 1024)
FLUX_2048 = ("flux.1", 2048, 2048)
COGVIDEO = ("cogvideox1.5-5b", 768, 1360, 161)


@pytest.mark.parametrize(
    ("which", "tokens", "sequence", "layers", "tflop_a_layer", "attention", "rest"),
    [
        (HUNYUAN, 118_800, 119_056, 60, 174.2, 10.45, 1.62),
        (WAN14_720, 75_600, 75_600, 40, 117.1, 9.36, 3.68),
        pytest.param(WAN14_480, 32_760, 32_760, 40, 22.0, 1.76, 1.59, marks=pytest.mark.slow),
        pytest.param(WAN13_480, 32_760, 32_760, 30, 6.59, 0.396, 0.170, marks=pytest.mark.slow),
        (FLUX_1024, 4_096, 4_608, 57, 0.261, 0.0149, 0.0595),
        pytest.param(FLUX_2048, 16_384, 16_896, 57, 3.51, 0.200, 0.218, marks=pytest.mark.slow),
        (COGVIDEO, 85_680, 85_906, 42, 90.7, 7.62, 1.63),
    ],
)
def test_tokens_and_flops_are_those_worked_out_by_hand(
    which: Any, tokens: int, sequence: int, layers: int, tflop_a_layer: float, attention: float, rest: float
) -> None:
    told = at(*which)
    assert (told.tokens, told.sequence) == (tokens, sequence)
    assert told.attention_flops_per_step / told.calls / layers / 1e12 == pytest.approx(tflop_a_layer, rel=0.005)
    assert told.attention_flops_per_step / 1e15 == pytest.approx(attention, rel=0.005)
    other = told.other_flops_per_step + told.other_attention_flops_per_step
    assert other / 1e15 == pytest.approx(rest, rel=0.02)
    assert told.flops_per_step == told.attention_flops_per_step + other


@pytest.mark.parametrize(("which", "petaflop"), [(HUNYUAN, 603), (WAN14_720, 652)])
def test_whole_runs_cost_what_is_published(which: Any, petaflop: float) -> None:
    assert at(*which).flops_total / 1e15 == pytest.approx(petaflop, rel=0.005)


@pytest.mark.parametrize(
    ("which", "share", "ceiling", "dense", "speedup"),
    [
        (HUNYUAN, 0.871, 7.8, 967, 1.84),
        (WAN14_720, 0.727, 3.7, 1038, 1.62),
        pytest.param(WAN14_480, 0.536, 2.2, 264, 1.39, marks=pytest.mark.slow),
        pytest.param(WAN13_480, 0.709, 3.4, 45, 1.59, marks=pytest.mark.slow),
        (FLUX_1024, 0.208, 1.26, None, None),
        pytest.param(FLUX_2048, 0.490, 2.0, None, None, marks=pytest.mark.slow),
        (COGVIDEO, 0.830, 5.9, None, None),
    ],
)
def test_ceilings_and_predictions(
    which: Any, share: float, ceiling: float, dense: float | None, speedup: float | None
) -> None:
    told = at(*which)
    assert told.attention_time_share == pytest.approx(share, abs=0.002)
    assert told.ceiling == pytest.approx(ceiling, abs=0.05)  # the table has two digits
    if dense is not None:
        assert told.seconds_total == pytest.approx(dense, rel=0.02)
        assert told.predicted_speedup == pytest.approx(speedup, rel=0.01)
    assert 1.0 < told.predicted_speedup < told.ceiling


def test_the_verdict_follows_the_gain() -> None:
    assert at(*HUNYUAN).worth and at(*HUNYUAN).verdict.startswith("worth it: attention is 87 % of the time")
    flux = at(*FLUX_1024)
    assert not flux.worth and flux.verdict.startswith("leave it alone: attention is 21 % of the time, at best 1.26x")
    assert flux.effective_sparsity == pytest.approx(0.8 * (4096 / 4608) ** 2)


PUBLISHED_BILLIONS = {
    "flux.1": 12,
    "flux.1-schnell": 12,
    "flux.2": 32,
    "flux.2-klein-4b": 4,
    "flux.2-klein-9b": 9,
    "chroma": 8.9,
    "qwen-image": 20,
    "z-image": 6.2,
    "lumina-2": 2.6,
    "dit-xl-2": 0.675 + 27 * 0.00278,  # its embedders, once more in every block but one (see test_account)
    "sd3.5-medium": 2.5,
    "sd3.5-large": 8.1,
    "wan2.1-1.3b": 1.4,
    "wan2.1-14b": 14,
    "wan2.2-a14b": 14,
    "wan2.2-5b": 5,
    "hunyuanvideo": 13,
    "hunyuanvideo-1.5": 8.3,
    "cogvideox-2b": 1.7,
    "cogvideox-5b": 5.6,
    "cogvideox1.5-5b": 5.6,
    "ltx": 1.9,
    "ltx-13b": 13,
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_the_published_size(name: str) -> None:
    built = build_on_meta(MODELS[name].transformer, dict(MODELS[name].config))
    assert all(weight.is_meta for weight in built.parameters())
    held = sum(weight.numel() for weight in built.state_dict().values())
    assert held / 1e9 == pytest.approx(PUBLISHED_BILLIONS[name], rel=0.04)


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_class_can_be_called_without_weights(name: str) -> None:
    transformer = build_on_meta(name, TINY_MODELS[name].settings)
    frames = 5 if SIGNATURES[name].video else None
    told = estimate(transformer, height=64, width=64, frames=frames, device="h100", text_tokens=5)
    whole_latents = name.startswith(("LTX", "Sana"))  # their patches are one latent, those of the others two by two
    assert told.tokens == (64 if whole_latents else 16) * (2 if frames else 1)
    assert told.other_flops_per_step > 0
    linear_only = name == "SanaTransformer2DModel"
    assert (told.attention_flops_per_step == 0) == linear_only
    assert not told.worth and told.verdict.startswith("leave it alone")


def test_masks_without_values_hide_nothing() -> None:
    name = "HunyuanVideo15Transformer3DModel"
    transformer = build_on_meta(name, TINY_MODELS[name].settings)
    told = estimate(transformer, height=64, width=64, frames=5, device="h100", text_tokens=5)
    assert told.sequence == told.tokens + 5 + 256 + 729


def test_products_are_counted_as_torch_counts_them() -> None:
    transformer = build_on_meta("WanTransformer3DModel", {**TINY_MODELS["WanTransformer3DModel"].settings})
    latent = Latent(frames=2, height=8, width=8, text=5, patch=(1, 2, 2))
    with torch.device("meta"):
        inputs = SIGNATURES["WanTransformer3DModel"].inputs(transformer.config, latent)
    cost = count_cost(transformer, inputs, latent.tokens)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        transformer(**inputs, return_dict=False)
    assert counter.get_total_flops() == cost.attention_flops + cost.other_attention_flops + cost.other_flops
    (own,), (cross,) = cost.self_attention, cost.other_attention
    assert (own.heads, own.queries, own.keys, own.width, own.count) == (2, 32, 32, 8, 4)
    assert (cross.queries, cross.keys) == (32, 5)


def test_a_folder_a_pipeline_and_its_transformer_say_the_same(tiny_folder: Path, tiny_pipe: Any) -> None:
    size = {"height": 32, "width": 32, "device": "h100"}
    by_folder = estimate(tiny_folder, **size)
    assert by_folder.tokens == 16 * 16 and by_folder.text_tokens == 0
    by_pipe = estimate(tiny_pipe, **size)
    for name in ("tokens", "parameters", "flops_total", "predicted_speedup"):
        assert getattr(by_folder, name) == getattr(by_pipe, name)
    alone = estimate(tiny_folder / "transformer", height=256, width=256, device="h100")
    assert not by_folder.notes and "8 pixels a latent are assumed" in alone.summary()
    assert alone.tokens == by_folder.tokens and alone.flops_total == by_folder.flops_total
    assert estimate(tiny_folder, device="h100").tokens == 16  # the size it was made for


def test_the_compression_and_both_experts_are_read_from_the_folder(tmp_path: Path) -> None:
    held = {
        "model_index.json": {"_class_name": "WanPipeline", "expand_timesteps": True},
        "transformer/config.json": {
            "_class_name": "WanTransformer3DModel",
            **TINY_MODELS["WanTransformer3DModel"].settings,
        },
        "transformer_2/config.json": {"_class_name": "WanTransformer3DModel"},
        "vae/config.json": {
            "_class_name": "AutoencoderKLWan",
            "base_dim": 8,
            "dim_mult": [1, 2],
            "temperal_downsample": [True],
            "scale_factor_spatial": 4,
            "scale_factor_temporal": 2,
        },
        "tokenizer/tokenizer_config.json": {"model_max_length": 8},
    }
    for name, content in held.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    told = estimate(tmp_path, height=32, width=64, frames=5, device="h100")
    assert told.tokens == 3 * 4 * 8 and told.text_tokens == 8 and told.calls == 2
    assert told.weights_bytes == 2 * 2 * told.parameters
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    assert (
        estimate(tmp_path, height=32, width=64, frames=5, device="h100").other_flops_per_step
        < told.other_flops_per_step
    )


@pytest.mark.parametrize(
    ("model", "settings", "error", "says"),
    [
        ("hunyuanvido", {}, UnknownNameError, "did you mean 'hunyuanvideo'"),
        ("flux.1", {"device": "h20"}, UnknownNameError, "did you mean 'h200'"),
        (
            "flux.1",
            {"height": 1000},
            InputError,
            "1000 is no multiple of 16, which 'flux.1' needs; try 992 or 1008",
        ),
        ("flux.1", {"frames": 9}, InputError, "makes pictures"),
        ("hunyuanvideo", {"frames": 128}, InputError, "try 125 or 129"),
        ("ltx", {"width": 8}, InputError, "try 32"),
        ("flux.1", {"sparsity": 1.0}, ConfigError, "sparsity"),
        ("flux.1", {"warmup": -0.1}, ConfigError, "warmup"),
        ("flux.1", {"steps": 0}, ConfigError, "steps must be at least 1"),
        ("sd3.5-large", {"height": 4096}, InputError, "cannot be run at this size"),
    ],
)
def test_slips_say_what_to_do(model: str, settings: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        estimate(model, **{"device": "h100", **settings})
    assert says in str(caught.value)


def test_what_holds_no_transformer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="save_pretrained"):
        estimate(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(UnsupportedModelError, match="UNet2DConditionModel cannot be estimated"):
        estimate(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds no configuration"):
        estimate(tmp_path)
    with pytest.raises(UnsupportedModelError, match="no diffusers pipeline"):
        estimate(SimpleNamespace())


def test_worthwhile_is_amdahl_with_a_search() -> None:
    assert worthwhile(0.5, 0.0, 1.0, 1.0) == 1.0
    assert worthwhile(0.0, 0.9, 1.0, 1.0) == 1.0
    assert worthwhile(0.8, 1.0, 1.0, 1.0) == pytest.approx(5.0)
    assert worthwhile(1.0, 0.8, 0.5, 0.5) == pytest.approx(1 / (0.5 + 0.5 * 0.4))
    assert worthwhile(1.0, 0.8, 0.5, 0.5, search_cost=0.1) == pytest.approx(1 / 0.8)
    assert worthwhile(1.0, 0.5, 1.0, 0.25) == pytest.approx(0.5)
    for bad in ({"attention_share": 1.1}, {"sparsity": -0.1}, {"kernel_ratio": 0.0}, {"search_cost": -1.0}):
        whole = {"attention_share": 0.5, "sparsity": 0.5, "sparse_fraction_of_steps": 0.5, "kernel_ratio": 1.0}
        with pytest.raises(ConfigError):
            worthwhile(**{**whole, **bad})


@pytest.mark.parametrize(("fraction", "ratio", "search"), [(1.0, 0.65, 0.0), (0.9, 0.65, 0.03), (0.5, 1.5, 0.4)])
def test_nothing_is_gained_at_break_even(fraction: float, ratio: float, search: float) -> None:
    even = break_even(fraction, ratio, search_cost=search)
    assert even is not None
    assert worthwhile(0.7, even, fraction, ratio, search_cost=search) == pytest.approx(1.0)
    assert break_even(search, ratio, search_cost=search) is None


@pytest.mark.parametrize("speedup", [1.1, 1.5])
def test_a_run_is_as_fast_as_asked_from_the_sparsity_and_the_share_that_are_said(speedup: float) -> None:
    run: dict[str, Any] = {"sparse_fraction_of_steps": 0.9, "kernel_ratio": 0.65}
    sparsity = break_even(**run, search_cost=0.03, attention_share=0.7, speedup=speedup)
    assert sparsity is not None
    assert worthwhile(0.7, sparsity, **run, search_cost=0.03) == pytest.approx(speedup)
    assert even_share(sparsity, **run, search_cost=0.03, speedup=speedup) == pytest.approx(0.7)
    assert break_even(**run, search_cost=0.03, attention_share=0.7, speedup=4.0) is None
    assert even_share(0.35, **run, search_cost=0.03, speedup=speedup) is None  # slower than dense: no share is enough
    assert even_share(0.8, **run, search_cost=0.03, speedup=4.0) is None


@pytest.mark.parametrize(
    ("settings", "dense", "searches"),
    [
        ({"steps": 1}, 1, 0),
        ({"steps": 4}, 2, 2),
        ({"steps": 50}, 6, 2),
        ({"steps": 50, "fresh": False}, 5, 2),
        ({"steps": 50, "warmup": 1.0}, 50, 0),
        ({"steps": 50, "warmup": 0.0, "searches": 1}, 1, 1),
    ],
)
def test_dense_steps_and_searches(settings: dict[str, Any], dense: int, searches: int) -> None:
    config = {**TINY_MODELS["WanTransformer3DModel"].settings, "num_layers": 2}
    told = estimate(
        build_on_meta("WanTransformer3DModel", config), height=512, width=512, frames=9, device="h100", **settings
    )
    assert (told.dense_steps, told.searches) == (dense, searches)
    if not searches:
        assert told.predicted_speedup == 1.0 and told.break_even is None and not told.worth


def test_a_run_at_the_even_density_is_as_fast_as_its_rival() -> None:
    told = at(*HUNYUAN)
    for even in told.evens:
        assert even.speedup == RIVALS[even.rival] and even.density is not None
        again = estimate(
            "hunyuanvideo", height=720, width=1280, frames=129, device="h200", warmup=0.2, fresh=False,
            sparsity=1.0 - even.density,
        )  # fmt: skip
        assert again.predicted_speedup == pytest.approx(even.speedup)
    assert all(even.density is None for even in at(*FLUX_1024).evens)


def test_attention_is_a_large_enough_share_at_the_even_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outpace.accel.estimate.predict.MEASURED_DENSITY", 0.2)
    told = estimate("wan2.1-14b", height=720, width=1280, frames=81, device="h200", warmup=0.2, fresh=False)
    rates, run = DEVICES["h200"], told.steps - told.dense_steps
    search = told.searches * 0.5 * rates.dense / rates.mass / told.steps
    for even in told.evens:
        assert even.tokens is not None
        grown = even.tokens / told.tokens * told.attention_time_share / (1.0 - told.attention_time_share)
        gain = worthwhile(grown / (1.0 + grown), 0.8, run / told.steps, rates.kernel_ratio, search_cost=search)
        assert gain == pytest.approx(even.speedup, rel=1e-4)


def test_index_memory_follows_the_kept_blocks() -> None:
    told = at(*HUNYUAN)
    rows, columns = -(-119_056 // 128), -(-119_056 // 64)
    kept = 60 * 24 * 4 * (rows * columns * (1.0 - told.effective_sparsity) + rows + 1)
    assert told.index_bytes == pytest.approx(kept, rel=1e-6)


def test_devices_are_found_by_the_names_they_go_by() -> None:
    assert find_device("NVIDIA H200") is DEVICES["h200"]
    assert find_device("NVIDIA A100-SXM4-80GB") is DEVICES["a100"]
    assert find_device("NVIDIA GeForce RTX 4090") is DEVICES["rtx4090"]
    for slower in ("NVIDIA H100 PCIe", "NVIDIA GeForce RTX 4090 Laptop GPU"):
        with pytest.raises(UnknownNameError):
            find_device(slower)
    for device in DEVICES.items():
        assert device[1].source and device[1].sparse < device[1].dense


def test_this_machine_is_measured() -> None:
    measured = find_device("cpu")
    for rate in (measured.dense, measured.gemm, measured.sparse, measured.mass):
        assert 1e-5 < rate < 1e3
    assert measured.source.startswith("measured now") and measured.weight_bytes == 4


def folded(text: str) -> str:
    return " ".join(text.split())


def test_the_summary_tells_the_essentials_and_importing_is_lazy() -> None:
    assert outpace.estimate is estimate
    told = at(*HUNYUAN)
    text = told.summary()
    for said in (
        "hunyuanvideo",
        "118,800 + 256 of text",
        "603 PFLOP in total",
        "87.1 % of the time",
        "7.77x",
        told.verdict,
        f"{round(told.steps / told.predicted_speedup)} plain steps instead of {told.steps}",
    ):
        assert said in text
    assert max(map(len, text.splitlines())) <= 110
    fewer, scheduled = told.evens
    assert 0.0 < scheduled.density < fewer.density < 1.0  # the faster a rival is, the less may be kept
    assert f"a scheduled forecast ({scheduled.speedup:.2f}x) from density {scheduled.density:.2f} down" in folded(text)
    assert json.loads(json.dumps(told.to_dict()))["tokens"] == 118_800
