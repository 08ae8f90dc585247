"""Conversion of every family's transformer: exact before it is approximate, saved whole, refused clearly."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from closeness import assert_same_but_rounding
from dense_models import CONVERTIBLE, build, first_scores, middle, run
from torch import nn

from outpace.accel.experts import (
    Conversion,
    Experts,
    Modulation,
    convert,
    find_experts,
    find_sites,
    load_transformer,
    random_importance,
    set_active,
)
from outpace.errors import UnsupportedModelError

EXPERTS = Conversion(experts=Experts())
every_model = pytest.mark.parametrize("cls", CONVERTIBLE)


def units(up: torch.Tensor, down: torch.Tensor, gate: torch.Tensor | None) -> list[tuple[float, ...]]:
    """Hidden units as the numbers that lead into and out of each."""
    parts = [up, down.T] if gate is None else [up, down.T, gate]
    return [tuple(row) for row in torch.cat(parts, 1).tolist()]


@every_model
def test_all_experts_with_gate_one_are_the_dense_model(cls: str) -> None:
    dense = build(cls)
    before, plain = copy.deepcopy(dense.state_dict()), run(dense)
    model = convert(dense, EXPERTS, importance=random_importance(dense))
    sparse = run(model)
    set_active(model, "all")
    assert_same_but_rounding(run(model), plain)
    assert (sparse - plain).abs().max() > 1e-4, "two of twelve experts are not the dense model"
    assert all(torch.equal(before[name], weight) for name, weight in dense.state_dict().items())


@every_model
def test_every_hidden_unit_is_in_one_expert(cls: str) -> None:
    dense = build(cls)
    model = convert(dense, EXPERTS, importance=first_scores(dense))
    layers = find_experts(model)
    sites = find_sites(dense)
    assert len(layers) == len(sites)
    for layer, site in zip(layers.values(), sites, strict=True):
        was = site.read()
        expected = units(was.up_HD, was.down_OH, was.gate_HD)
        shared, routed = layer.shared, layer.experts
        assert shared is not None and routed.up is not None and routed.down is not None
        found = units(shared.up.weight, shared.down.weight, None if shared.gate is None else shared.gate.weight)
        assert sorted(found) == sorted(expected[len(expected) * 3 // 4 :]), "the highest scores are shared"
        for e in range(len(routed.up)):
            found += units(routed.up[e].mT, routed.down[e].mT, None if routed.gate is None else routed.gate[e].mT)
        assert sorted(found) == sorted(expected)
        assert (layer.bias is None) == (was.bias_O is None)


@every_model
def test_a_sample_does_not_depend_on_its_batch(cls: str) -> None:
    dense = build(cls)
    model = convert(dense, Conversion(experts=Experts(), groups=(middle(dense),)))
    together = run(model)
    for sample in range(3):
        assert_same_but_rounding(run(model, (sample,))[0], together[sample])


@every_model
def test_what_is_saved_is_loaded_bit_by_bit(cls: str, tmp_path: Path) -> None:
    dense = build(cls)
    settings = Conversion(experts=Experts(scores="sigmoid", scaling="normalize"), groups=(middle(dense),))
    model = convert(dense, settings, importance=random_importance(dense), seed=3)
    model.save_pretrained(tmp_path)
    again = load_transformer(tmp_path)
    assert type(again) is type(model) and dict(again.config)["conversion"] == settings.to_dict()
    saved, loaded = model.state_dict(), again.state_dict()
    assert list(saved) == list(loaded)
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert_same_but_rounding(run(again), run(model))


@every_model
def test_gradients_reach_every_expert_and_router(cls: str) -> None:
    model = convert(build(cls), Conversion(experts=Experts(layout="1S4E4A"))).requires_grad_(True)
    with torch.enable_grad():
        run(model).square().mean().backward()
    layers = find_experts(model)
    unused = [path for path, layer in layers.items() if layer.router.weight.grad is None]
    # The text that leaves the last block is used no more in two of the classes.
    assert unused in ([], [list(layers)[-1]])
    for path in set(layers) - set(unused):
        for name, weight in layers[path].named_parameters():
            assert weight.grad is not None and weight.grad.abs().max() > 0, f"{path}.{name}"


def test_sana_is_refused_with_the_reason() -> None:
    with pytest.raises(UnsupportedModelError, match="convolve neighbouring tokens"):
        convert(build("SanaTransformer2DModel"), EXPERTS)


def test_what_is_a_mixture_already_is_refused() -> None:
    model = convert(build("DiTTransformer2DModel"), EXPERTS)
    with pytest.raises(UnsupportedModelError, match="converted already; start from the dense"):
        convert(model, Conversion(modulation=Modulation(rank=2)))
    with pytest.raises(UnsupportedModelError, match="mixture of experts already"):
        find_sites(model)


def test_a_block_that_is_not_understood_is_named() -> None:
    model = build("DiTTransformer2DModel")
    model.transformer_blocks[1].ff = nn.Linear(16, 16)
    with pytest.raises(UnsupportedModelError, match=r"BasicTransformerBlock has no feed-forward.*SITE_KINDS"):
        find_sites(model)
    with pytest.raises(UnsupportedModelError, match="no diffusers transformer"):
        convert(nn.Linear(2, 2), EXPERTS)
