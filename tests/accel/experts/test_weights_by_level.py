"""Weights of their own at each noise level: the pruned layer before training, the dense one with all, one a level."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from closeness import assert_same_but_rounding
from dense_models import CONVERTIBLE, build, run
from test_by_noise import mixed, told
from tiny import TinyPipeline
from torch import nn

from outpace.accel import GatedTaylor, accelerate
from outpace.accel.experts import (
    Conversion,
    Experts,
    Integers,
    Layout,
    active_parameters,
    convert,
    find_integers,
    find_noise_experts,
    find_sites,
    level_borders,
    load_transformer,
    parameter_count,
    set_active,
)
from outpace.accel.experts.calls import record_calls
from outpace.errors import ConfigError, InputError

every_model = pytest.mark.parametrize("cls", CONVERTIBLE)
some_models = pytest.mark.parametrize(
    "cls", ["DiTTransformer2DModel", "FluxTransformer2DModel", "Flux2Transformer2DModel"]
)
LAYOUT = "1S12E2A2W"


def converted(cls: str, *, trained: bool, **more: object) -> tuple[nn.Module, nn.Module, dict[str, torch.Tensor]]:
    """A dense model, one with weights for two levels that part between times 100 and 900, and the importance of units.

    Args:
        trained: whether the levels' changes are something, as after training.
    """
    dense = build(cls)
    border = (told(dense, 100.0) + told(dense, 900.0)) / 2
    generator = torch.Generator().manual_seed(5)
    scores = {site.path: torch.rand(site.read().hidden, generator=generator) for site in find_sites(dense)}
    settings = Conversion(experts=Experts(layout=LAYOUT), borders=(border,), **more)  # pyright: ignore
    model = convert(dense, settings, importance=scores)
    if trained:
        change(model, generator)
    return dense, model, scores


def change(model: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for layer in find_noise_experts(model).values():
            for part in layer.changes.parameters():
                part.copy_(0.1 * torch.randn(part.shape, generator=generator))


@every_model
def test_untrained_it_is_the_pruned_model_and_with_all_units_the_dense_one(cls: str) -> None:
    dense, model, scores = converted(cls, trained=False)
    pruned = convert(dense, Conversion(width=0.375), importance=scores)
    for time in (100.0, 900.0):
        assert_same_but_rounding(run(model, time=time), run(pruned, time=time))
    assert (run(model, time=900.0) - run(dense, time=900.0)).abs().max() > 1e-4
    change(model, torch.Generator().manual_seed(0))
    set_active(model, "all")
    assert_same_but_rounding(run(model, time=900.0), run(dense, time=900.0))


@some_models
def test_levels_differ_and_a_sample_does_not_depend_on_those_of_its_batch(cls: str) -> None:
    _, model, _ = converted(cls, trained=True)
    _, plain, _ = converted(cls, trained=False)
    times = (900.0, 100.0, 900.0)
    together = mixed(model, cls, times)
    for sample, time in enumerate(times):
        alone = run(model, (sample,), time)[0]
        assert_same_but_rounding(together[sample], alone)
        assert (alone - run(plain, (sample,), time)[0]).abs().max() > 1e-4


@pytest.mark.parametrize("active", [0, 2, 5, 12])
def test_a_level_is_the_dense_layer_of_its_units_with_its_change(active: int) -> None:
    dense, model, _ = converted("DiTTransformer2DModel", trained=True)
    set_active(model, active)
    run(model, (0,), 900.0)
    path, layer = next(iter(find_noise_experts(model).items()))
    x = torch.randn(2, 5, layer.up.in_features, generator=torch.Generator().manual_seed(0))
    full, level = dense.get_submodule(path), layer.changes[1]
    changed, held = layer.order[1, : min(layer.units(0), 24)], layer.order[1, : layer.units(0)]
    up, down = full.net[0].proj.weight.clone(), full.net[2].weight.clone()  # pyright: ignore
    up[changed] += level.up.weight[: len(changed)]  # pyright: ignore
    down[:, changed] += level.down.weight[:, : len(changed)]  # pyright: ignore
    hidden = nn.functional.gelu(x @ up.T + full.net[0].proj.bias, approximate=full.net[0].approximate)  # pyright: ignore
    mask = torch.zeros(len(up))
    mask[held] = 1.0
    assert layer.units(0) == {0: 16, 2: 24, 5: 36, 12: 64}[active]
    bias = full.net[2].bias + level.down.bias  # pyright: ignore
    assert_same_but_rounding(layer(x), (hidden * mask) @ down.T + bias)  # pyright: ignore


def test_a_level_learns_its_change_from_its_samples_and_units_from_all() -> None:
    _, model, _ = converted("DiTTransformer2DModel", trained=False)
    model.requires_grad_(True)
    with torch.enable_grad():
        run(model, time=900.0).square().mean().backward()
    for layer in find_noise_experts(model).values():
        touched = layer.up.weight.grad.abs().sum(1) > 0  # pyright: ignore
        assert touched.nonzero().flatten().tolist() == sorted(layer.order[0, : layer.units(0)].tolist())
        first, second = layer.changes
        assert all(part.grad is None or not part.grad.any() for part in first.parameters())
        assert all(part.grad is not None and part.grad.any() for part in second.parameters())


def test_a_change_that_changes_is_gathered_anew() -> None:
    _, model, _ = converted("DiTTransformer2DModel", trained=True)
    first = run(model, time=900.0)
    other = run(model, time=100.0)
    change(model, torch.Generator().manual_seed(9))
    assert not torch.equal(run(model, time=900.0), first) and not torch.equal(run(model, time=100.0), other)


@some_models
def test_what_is_saved_is_loaded_bit_by_bit(cls: str, tmp_path: Path) -> None:
    _, model, _ = converted(cls, trained=True)
    model.save_pretrained(tmp_path)  # pyright: ignore
    again = load_transformer(tmp_path)
    saved, loaded = model.state_dict(), again.state_dict()
    assert list(saved) == list(loaded) and all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert_same_but_rounding(run(again, time=100.0), run(model, time=100.0))


def test_it_is_held_as_codes() -> None:
    """A change of nothing stays nothing, and what is trained is near."""
    _, plain, _ = converted("DiTTransformer2DModel", trained=False)
    _, model, _ = converted("DiTTransformer2DModel", trained=False, integers=Integers())
    held = [path for path in find_integers(model) if ".changes." in path]
    assert len(held) == 2 * 2 * len(find_noise_experts(model))
    assert all(not find_integers(model)[path].codes.any() for path in held)
    exact, codes = run(plain, time=900.0), run(model, time=900.0)
    assert 0 < float((codes - exact).norm() / exact.norm()) < 0.02


def test_it_is_forecast_like_any_other() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    pipe.transformer = converted("FluxTransformer2DModel", trained=True)[1]
    plain = pipe([0, 1], steps=4)
    with accelerate(pipe, GatedTaylor(threshold=0.0)):
        assert torch.equal(pipe([0, 1], steps=4), plain)
    with accelerate(pipe, GatedTaylor(threshold=1e6, gate="paper", warmup=2, cooldown=1)) as done:
        pipe([0, 1], steps=6)
    assert done.trace.totals()["forecast"] > 0


def test_parameters_are_those_of_every_level_and_used_are_those_of_one() -> None:
    dense, model, scores = converted("DiTTransformer2DModel", trained=False)
    pruned = convert(dense, Conversion(width=0.375), importance=scores)
    changes = sum(parameter_count(layer.changes) for layer in find_noise_experts(model).values())
    kept = sum(24 * (layer.up.in_features + layer.down.out_features) for layer in find_noise_experts(model).values())
    kept += sum(layer.down.out_features for layer in find_noise_experts(model).values())  # of the output's bias
    assert changes == 2 * kept and parameter_count(model) == parameter_count(dense) + changes
    assert active_parameters(model) == parameter_count(pruned)


def test_layouts_are_read_and_refused() -> None:
    layout = Layout.parse("0S8E3A4w")
    assert (layout.levels, layout.weights, str(layout), layout.fraction) == (4, True, "0S8E3A4W", 0.375)
    assert not Layout.parse("0S8E3A4N").weights
    with pytest.raises(ConfigError, match="write 1W or more"):
        Layout.parse("0S8E3A0W")
    with pytest.raises(ConfigError, match="noise levels"):
        Layout(weights=True)


def test_borders_alone_are_those_that_importance_measures() -> None:
    model = build("DiTTransformer2DModel")
    calls = [
        call for time in (100.0, 300.0, 500.0, 900.0) for call in record_calls(model, lambda t=time: run(model, time=t))
    ]
    assert level_borders(calls, 2) == (400.0,) and level_borders(calls, 4) == (200.0, 400.0, 700.0)
    with pytest.raises(InputError, match="no timestep"):
        level_borders([{**calls[0], "timestep": None}], 1)
