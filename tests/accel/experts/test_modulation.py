"""Smaller modulations: the best approximation of a rank, one matrix for all blocks, refused where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dense_models import CONVERTIBLE, MODULATED, build, run

from outpace.accel.experts import Conversion, Modulation, convert, load_transformer
from outpace.accel.experts.modulation import find_modulations
from outpace.errors import ConfigError, UnsupportedModelError


@pytest.mark.parametrize("cls", MODULATED)
def test_a_sufficient_rank_loses_nothing(cls: str) -> None:
    dense = build(cls)
    found = find_modulations(dense)
    for linear in found.values():  # matrices of rank 2, as those of a trained model nearly are
        out, width = linear.weight.shape
        linear.weight.copy_(torch.randn(out, 2) @ torch.randn(2, width) * 0.1)
    model = convert(dense, Conversion(modulation=Modulation(rank=2)))
    plain = run(dense)
    assert (run(model) - plain).abs().max() <= 1e-4 * max(1.0, float(plain.abs().max()))
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in dense.parameters())


@pytest.mark.parametrize("cls", MODULATED)
def test_blocks_that_are_alike_share_a_matrix_without_loss(cls: str, tmp_path: Path) -> None:
    dense = build(cls)
    kinds: dict[tuple[object, ...], torch.Tensor] = {}
    for path, linear in find_modulations(dense).items():
        kind = (*(part for part in path.split(".") if not part.isdecimal()), linear.weight.shape)
        linear.weight.copy_(kinds.setdefault(kind, linear.weight.clone()))
    model = convert(dense, Conversion(modulation=Modulation(kind="shared")))
    assert torch.allclose(run(model), run(dense), atol=1e-5)
    assert len(model.shared_modulations) == len(kinds)
    model.save_pretrained(tmp_path)
    assert torch.allclose(run(load_transformer(tmp_path)), run(model), atol=1e-6)


def test_the_rank_that_is_kept_is_the_best() -> None:
    dense = build("FluxTransformer2DModel")
    path, linear = next(iter(find_modulations(dense).items()))
    model = convert(dense, Conversion(modulation=Modulation(rank=3)))
    into, out_of = model.get_submodule(path)
    kept = out_of.weight @ into.weight
    values = torch.linalg.svdvals(linear.weight)
    assert float((kept - linear.weight).square().sum()) == pytest.approx(float(values[3:].square().sum()), rel=1e-4)
    assert torch.equal(out_of.bias, linear.bias)


@pytest.mark.parametrize("cls", sorted(set(CONVERTIBLE) - set(MODULATED)))
def test_models_that_share_their_modulation_are_refused(cls: str) -> None:
    with pytest.raises(UnsupportedModelError, match="no modulation of their own to compress; leave it out"):
        convert(build(cls), Conversion(modulation=Modulation(rank=2)))


def test_a_rank_that_saves_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rank 48 saves nothing on transformer_blocks.0.norm1.linear \(96 x 16\)"):
        convert(build("FluxTransformer2DModel"), Conversion(modulation=Modulation()))
    with pytest.raises(ConfigError, match="kind must be one of low_rank, shared"):
        Modulation(kind="none")
    with pytest.raises(ConfigError, match="rank must be a whole number >= 1"):
        Modulation(rank=0)
    with pytest.raises(ConfigError, match="nothing to convert"):
        Conversion()
