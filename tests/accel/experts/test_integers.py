"""Transformers whose linear layers hold 8-bit codes: near the dense one, small, saved and loaded, and under methods."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from dense_models import build, run
from larger import adaspa, larger
from tiny import TinyPipeline
from torch import nn

from outpace.accel import GatedTaylor, accelerate
from outpace.accel.experts import (
    Conversion,
    Experts,
    IntegerLinear,
    Integers,
    Modulation,
    active_parameters,
    convert,
    count,
    find_integers,
    load_transformer,
    weight_bytes,
)
from outpace.accel.experts.integers import to_integers
from outpace.errors import ConfigError, UnsupportedModelError

SOME = ["DiTTransformer2DModel", "FluxTransformer2DModel", "SD3Transformer2DModel", "WanTransformer3DModel"]


def far(model: nn.Module, dense: nn.Module) -> float:
    plain = run(dense)
    return float((run(model) - plain).norm() / plain.norm())


@pytest.mark.parametrize("cls", SOME)
def test_codes_are_near_the_weights_and_products_of_few_bits_are_not(cls: str) -> None:
    dense = build(cls)
    fine = convert(dense, Conversion(integers=Integers(block=16)))
    rounded = convert(dense, Conversion(integers=Integers(block=16, inputs=8)))
    rough = convert(dense, Conversion(integers=Integers(block=16, inputs=3)))
    assert 0 < far(fine, dense) < 0.02
    assert far(rounded, dense) < 0.02 and 4 * far(rounded, dense) < far(rough, dense)
    assert active_parameters(fine) == active_parameters(dense) == sum(p.numel() for p in dense.parameters())
    assert weight_bytes(fine) < weight_bytes(dense)


def test_a_layer_answers_by_what_its_codes_stand_for_in_every_type() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(128, 24)
    layer = IntegerLinear(linear, block=64)
    assert layer.codes.dtype == torch.int8 and layer.steps.dtype == torch.bfloat16
    weight = (layer.codes.double() * layer.steps.double()).flatten(1)
    half_a_step = layer.steps.double().expand(24, 2, 64).flatten(1) / 2
    assert ((weight - linear.weight.double()).abs() <= half_a_step * 1.0001).all()
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        x = torch.randn(5, 128, dtype=dtype)
        truth = x.double() @ weight.T + linear.bias.detach().double()
        made = layer.to(dtype)(x) if dtype != torch.bfloat16 else layer.bfloat16()(x)
        assert made.dtype == dtype and (made.double() - truth).abs().max() < near * 4
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(torch.randn(2, 128)).dtype == torch.bfloat16


def test_they_are_saved_and_loaded_to_the_bit(tmp_path: Path) -> None:
    model = convert(build("FluxTransformer2DModel"), Conversion(integers=Integers(), modulation=Modulation(rank=2)))
    model.save_pretrained(tmp_path)
    again = load_transformer(tmp_path)
    assert torch.equal(run(again), run(model))
    found = find_integers(again)
    assert found and all(layer.codes.dtype == torch.int8 for layer in found.values())
    half = load_transformer(tmp_path, torch_dtype=torch.bfloat16)
    for path, layer in find_integers(half).items():
        assert torch.equal(layer.codes, found[path].codes) and torch.equal(layer.steps, found[path].steps)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) < 1.1 * weight_bytes(model) + 20_000


@pytest.mark.parametrize("cls", ["FluxTransformer2DModel", "WanTransformer3DModel"])
def test_forecasts_and_sparse_attention_work_on_them(cls: str) -> None:
    pipe = TinyPipeline(larger(cls))
    pipe.transformer = convert(pipe.transformer, Conversion(integers=Integers()))
    plain = pipe([0, 1], steps=8)
    with accelerate(pipe, GatedTaylor(threshold=0.0)):
        assert torch.equal(pipe([0, 1], steps=8), plain)
    with accelerate(pipe, GatedTaylor(threshold=1e6, warmup=3), adaspa(recall=0.5, searches=(0.0,))) as made:
        assert torch.isfinite(pipe([0, 1], steps=8)).all()
    assert made.trace.totals()["forecast"] > 0 and made.trace.attention.calls["sparse"] > 0


def test_counting_sees_the_same_parameters_and_work() -> None:
    told = count(build("DiTTransformer2DModel"), Conversion(integers=Integers(inputs=8)))
    assert told.parameters == told.active_parameters == told.dense_parameters and told.flops == told.dense_flops
    assert told.bytes < told.dense_bytes == 2 * told.dense_parameters
    assert "bytes, bfloat16" in told.summary()


def test_the_page_of_results_is_what_the_benchmark_wrote(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("int8", root / "benchmarks" / "int8.py")
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    report = json.loads((root / "benchmarks" / "results" / "int8.json").read_text(encoding="utf-8"))
    assert benchmark.markdown(report) == (root / "docs" / "results_int8.md").read_text(encoding="utf-8")
    for rows in report["pockets"].values():
        dense, codes = rows["dense"], rows["codes, a scale for 64 weights"]
        assert codes["bytes"]["bfloat16"] < dense["bytes"]["bfloat16"] and codes["psnr"]["least"] > 40


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ConfigError, match="not both"):
        Conversion(integers=Integers(), experts=Experts())
    with pytest.raises(ConfigError, match="inputs"):
        Integers(inputs=9)
    with pytest.raises(ConfigError, match="block"):
        Integers(block=0)
    with pytest.raises(ConfigError, match=r"no setting 'blok'.*block"):
        Conversion.from_dict({"version": 1, "integers": {"blok": 3}})
    settings = Conversion(integers=Integers(block=32, inputs=8))
    assert Conversion.from_dict(settings.to_dict()) == settings
    dense = build("DiTTransformer2DModel")
    for block in dense.transformer_blocks:
        for parent in list(block.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, nn.Identity())
    with pytest.raises(UnsupportedModelError, match="no linear layer in its blocks"):
        to_integers(dense, Integers())
