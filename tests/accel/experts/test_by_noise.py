"""Experts chosen by the noise level: exact with all of them, one dense layer a level, sample by sample in a batch."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from closeness import assert_same_but_rounding
from dense_models import CONVERTIBLE, build, run
from tiny import TinyPipeline, noise, texts
from tiny_models import TINY_MODELS
from torch import nn

from outpace.accel import GatedTaylor, accelerate, find_family
from outpace.accel.experts import (
    Conversion,
    Experts,
    Integers,
    Layout,
    active_parameters,
    convert,
    find_noise_experts,
    find_sites,
    level_importance,
    load_transformer,
    output_change,
    set_active,
    taylor_importance,
)
from outpace.accel.experts.calls import record_calls
from outpace.accel.experts.noise_levels import timesteps_of
from outpace.errors import ConfigError

every_model = pytest.mark.parametrize("cls", CONVERTIBLE)
LAYOUT = "1S12E2A2N"


def told(model: nn.Module, time: float) -> float:
    """What the tiny call at `time` tells the transformer: families scale and turn timesteps."""
    seen = timesteps_of(recorded(model, (time,))[0].get(find_family(model).time))
    assert seen is not None
    return sum(seen) / len(seen)


def converted(cls: str, **more: object) -> tuple[nn.Module, nn.Module]:
    """A dense model, and one whose two levels part between times 100 and 900 and rank units otherwise."""
    dense = build(cls)
    border = (told(dense, 100.0) + told(dense, 900.0)) / 2
    generator = torch.Generator().manual_seed(5)
    scores = {site.path: torch.rand(2, site.read().hidden, generator=generator) for site in find_sites(dense)}
    settings = Conversion(experts=Experts(layout=LAYOUT), borders=(border,), **more)  # pyright: ignore
    return dense, convert(dense, settings, importance=scores)


def mixed(model: nn.Module, cls: str, times: tuple[float, ...]) -> torch.Tensor:
    """One batch of samples at `times`."""
    tiny, seeds = TINY_MODELS[cls], tuple(range(len(times)))
    return tiny.call(model, noise(tiny, seeds), torch.tensor(times), texts(seeds))


@every_model
def test_all_experts_are_the_dense_model_and_levels_differ(cls: str) -> None:
    dense, model = converted(cls)
    levels = {layer.noise.levels for time in (100.0, 900.0) if run(model, (0,), time) is not None
              for layer in find_noise_experts(model).values()}  # fmt: skip
    assert levels == {(0,), (1,)}
    plain, sparse = run(dense, time=900.0), run(model, time=900.0)
    assert (sparse - plain).abs().max() > 1e-4
    set_active(model, "all")
    assert_same_but_rounding(run(model, time=900.0), plain)
    assert_same_but_rounding(run(model, time=100.0), run(dense, time=100.0))


@every_model
def test_a_sample_does_not_depend_on_the_levels_of_its_batch(cls: str) -> None:
    _, model = converted(cls)
    together = mixed(model, cls, (900.0, 100.0, 900.0))
    for sample, time in enumerate((900.0, 100.0, 900.0)):
        assert_same_but_rounding(together[sample], run(model, (sample,), time)[0])


@pytest.mark.parametrize("cls", ["DiTTransformer2DModel", "Flux2Transformer2DModel", "WanTransformer3DModel"])
def test_what_is_saved_is_loaded_bit_by_bit(cls: str, tmp_path: Path) -> None:
    _, model = converted(cls)
    model.save_pretrained(tmp_path)  # pyright: ignore
    again = load_transformer(tmp_path)
    saved, loaded = model.state_dict(), again.state_dict()
    assert list(saved) == list(loaded) and all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert_same_but_rounding(run(again, time=100.0), run(model, time=100.0))


def test_a_level_is_the_dense_layer_of_its_units() -> None:
    dense, model = converted("DiTTransformer2DModel")
    run(model, (0,), 900.0)
    path, layer = next(iter(find_noise_experts(model).items()))
    x = torch.randn(2, 5, layer.up.in_features, generator=torch.Generator().manual_seed(0))
    full = dense.get_submodule(path)
    hidden = full.net[0](x)  # pyright: ignore
    mask = torch.zeros(hidden.shape[-1])
    mask[layer.order[1, : layer.units(0)]] = 1.0
    assert layer.units(0) == 24 and hidden.shape[-1] == 64
    assert_same_but_rounding(layer(x), full.net[2](hidden * mask))  # pyright: ignore


def test_weights_that_change_are_gathered_anew() -> None:
    _, model = converted("DiTTransformer2DModel")
    first = run(model)
    assert torch.equal(run(model), first)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for layer in find_noise_experts(model).values():
            layer.down.weight.mul_(2.0)
    assert not torch.equal(run(model), first) and torch.equal(run(other), first)
    layer = next(iter(find_noise_experts(other).values()))
    layer.up.weight = nn.Parameter(torch.zeros_like(layer.up.weight), requires_grad=False)
    assert not torch.equal(run(other), first)


def test_units_of_every_level_learn_from_its_samples() -> None:
    _, model = converted("DiTTransformer2DModel")
    model.requires_grad_(True)
    with torch.enable_grad():
        run(model, time=100.0).square().mean().backward()
    for layer in find_noise_experts(model).values():
        touched = layer.up.weight.grad.abs().sum(1) > 0  # pyright: ignore
        assert touched.nonzero().flatten().tolist() == sorted(layer.order[0, : layer.units(0)].tolist())


def test_fewer_and_more_may_be_active() -> None:
    dense, model = converted("FluxTransformer2DModel")
    plain = run(dense)
    far = []
    for active in (0, 2, 6, 12):
        set_active(model, active)
        far.append(float((run(model) - plain).square().mean()))
    assert len(set(far)) == 4 and far[-1] < 1e-6 * min(far[:-1])
    with pytest.raises(ConfigError, match="0 to 12 or 'all'"):
        set_active(model, 13)


def test_it_is_forecast_like_any_other() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    pipe.transformer = converted("FluxTransformer2DModel")[1]
    plain = pipe([0, 1], steps=4)
    with accelerate(pipe, GatedTaylor(threshold=0.0)):
        assert torch.equal(pipe([0, 1], steps=4), plain)
    with accelerate(pipe, GatedTaylor(threshold=1e6, gate="paper", warmup=3, cooldown=1)) as done:
        assert torch.isfinite(pipe([0, 1], steps=8)).all()
    assert done.trace.totals()["forecast"] > 0


def test_codes_of_8_bits_are_gathered_too(tmp_path: Path) -> None:
    dense, model = converted("DiTTransformer2DModel", integers=Integers())
    _, exact = converted("DiTTransformer2DModel")
    near, plain = run(model), run(exact)
    assert 0 < (near - plain).square().mean() < 1e-3 * plain.square().mean()
    model.save_pretrained(tmp_path)  # pyright: ignore
    assert_same_but_rounding(run(load_transformer(tmp_path)), near)
    set_active(model, "all")
    assert (run(model) - run(dense)).square().mean() < 1e-3 * run(dense).square().mean()


def test_one_level_is_width_pruning_by_taylor() -> None:
    dense = build("DiTTransformer2DModel")
    calls = recorded(dense, (100.0, 500.0, 900.0))
    measured = level_importance(dense, calls, 1)
    plain = taylor_importance(dense, calls, output_change)
    assert measured.borders == () and {p: s.shape for p, s in measured.scores.items()} == {
        p: (1, *s.shape) for p, s in plain.items()
    }
    by_noise = convert(dense, Conversion(experts=Experts(layout="0S8E3A1N")), importance=measured.scores)
    scores = {path: one[0] for path, one in measured.scores.items()}
    narrow = convert(dense, Conversion(width=0.375), importance=scores)
    assert_same_but_rounding(run(by_noise), run(narrow))
    assert active_parameters(by_noise) == sum(p.numel() for p in narrow.parameters())


def test_levels_hold_equally_many_samples_and_are_measured_apart() -> None:
    dense = build("FluxTransformer2DModel")
    calls = recorded(dense, (100.0, 300.0, 700.0, 900.0))
    measured = level_importance(dense, calls, 2)
    assert len(measured.borders) == 1
    assert abs(measured.borders[0] - (told(dense, 300.0) + told(dense, 700.0)) / 2) < 1e-6
    generator = torch.Generator().manual_seed(0)
    for level, some in enumerate((calls[:2], calls[2:])):
        alone = taylor_importance(dense, some, partial(output_change, generator=generator))
        for path, scores in alone.items():
            torch.testing.assert_close(measured.scores[path][level], scores)
    with pytest.raises(ConfigError, match="4 timesteps cannot be parted into 5 noise levels"):
        level_importance(dense, calls, 5)


def recorded(model: nn.Module, times: tuple[float, ...]) -> list[dict[str, object]]:
    """The keyword arguments that the tiny pipeline gives `model` at `times`."""
    return record_calls(model, lambda: [run(model, time=time) for time in times])


def test_layouts_by_noise_are_read_and_checked() -> None:
    assert Layout.parse("1s12e2a4n") == Layout(levels=4) and str(Layout(levels=4)) == "1S12E2A4N"
    assert Layout.parse("0S8E3A2N").fraction == 0.375 and Layout.parse("1S12E2A").levels == 0
    with pytest.raises(ConfigError, match="has no noise level"):
        Layout.parse("1S12E2A0N")
    with pytest.raises(ConfigError, match="nothing would run"):
        Layout.parse("0S8E0A2N")
    settings = Conversion(experts=Experts(layout=LAYOUT), borders=(0.5,))
    assert Conversion.from_dict(settings.to_dict()) == settings
    with pytest.raises(ConfigError, match="2 noise levels have 1 borders"):
        Conversion(experts=Experts(layout=LAYOUT), borders=(0.5, 0.6))
    with pytest.raises(ConfigError, match="experts of tokens hold no 8-bit codes"):
        Conversion(experts=Experts(), integers=Integers())
