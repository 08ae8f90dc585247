"""Experts spread over layers and noise levels: within the budget, where they are worth most, exact with all, saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from closeness import assert_same_but_rounding
from dense_models import CONVERTIBLE, build, run
from test_by_noise import mixed, recorded, told
from torch import nn

from outpace.accel.experts import (
    Conversion,
    Experts,
    LayerExperts,
    Layout,
    LevelImportance,
    active_parameters,
    convert,
    count,
    find_noise_experts,
    find_sites,
    level_importance,
    load_transformer,
    parameter_count,
    set_active,
    spread_experts,
    start_levels,
)
from outpace.accel.experts.spread import spread_by_worth, worth_of
from outpace.errors import ConfigError

every_model = pytest.mark.parametrize("cls", CONVERTIBLE)
LAYOUT = "0S16E6A2W"
TIMES = (100.0, 900.0)


def measured(dense: nn.Module) -> LevelImportance:
    """Random scores, of which late layers have the larger ones, and as many tokens everywhere."""
    generator = torch.Generator().manual_seed(5)
    sites = find_sites(dense)
    scores = {
        site.path: (1 + place) * torch.rand(2, site.read().hidden, generator=generator)
        for place, site in enumerate(sites)
    }
    border = (told(dense, TIMES[0]) + told(dense, TIMES[1])) / 2
    return LevelImportance((border,), scores, {site.path: 4.0 for site in sites})


def spread(cls: str, layout: str = LAYOUT) -> tuple[nn.Module, nn.Module, Conversion]:
    dense = build(cls)
    found = measured(dense)
    settings = Conversion(
        experts=Experts(layout=layout), borders=found.borders, spread=spread_experts(dense, found, layout)
    )
    return dense, convert(dense, settings, importance=found.scores), settings


@every_model
def test_all_experts_are_the_dense_model_and_levels_run_their_own_number(cls: str) -> None:
    dense, model, settings = spread(cls)
    wanted = {layer.path: layer.active for layer in settings.spread}
    layers = find_noise_experts(model)
    assert (
        sorted(layer.active for layer in layers.values()) == sorted(wanted.values()) and len(set(wanted.values())) > 1
    )
    for time in TIMES:
        x = run(model, time=time)
        assert (x - run(dense, time=time)).abs().max() > 1e-4
        for layer in layers.values():
            (level,) = layer.noise.levels or ()
            up = layer._laid_out[level].weights[0]
            assert len(up) == layer.units(level) == layer.active[level] * layer.order.shape[1] // 16  # pyright: ignore
    set_active(model, "all")
    for time in TIMES:
        assert_same_but_rounding(run(model, time=time), run(dense, time=time))


@pytest.mark.parametrize("cls", ["DiTTransformer2DModel", "FluxTransformer2DModel"])
def test_a_sample_does_not_depend_on_the_levels_of_its_batch(cls: str) -> None:
    _, model, _ = spread(cls)
    together = mixed(model, cls, (900.0, 100.0, 900.0))
    for sample, time in enumerate((900.0, 100.0, 900.0)):
        assert_same_but_rounding(together[sample], run(model, (sample,), time)[0])


@pytest.mark.parametrize("layout", [LAYOUT, "0S16E6A2N", "1S12E2A2W"])
def test_what_is_saved_is_loaded_with_its_numbers_and_what_they_are_worth(layout: str, tmp_path: Path) -> None:
    _, model, _ = spread("FluxTransformer2DModel", layout)
    model.save_pretrained(tmp_path)  # pyright: ignore
    again = load_transformer(tmp_path)
    saved, loaded = model.state_dict(), again.state_dict()
    assert list(saved) == list(loaded) and all(torch.equal(saved[name], loaded[name]) for name in saved)
    for path, layer in find_noise_experts(again).items():
        assert layer.active == model.get_submodule(path).active and layer.worth.any()
    for share in (None, 0.5):
        if share is not None:
            set_active(model, share)
            set_active(again, share)
        assert_same_but_rounding(run(again, time=900.0), run(model, time=900.0))


def test_experts_are_taken_where_they_are_worth_most_for_what_they_cost() -> None:
    """Two layers of 4 units, the second of twice the cost: of 12 at each of 2 levels, half can be paid."""
    worth = {
        "cheap": torch.tensor([[9.0, 5.0, 4.0, 1.0], [9.0, 0.9, 0.8, 0.7]]),
        "dear": torch.tensor([[8.0, 7.0, 3.0, 1.0], [8.0, 1.7, 1.6, 1.5]]),
    }
    layout = Layout.parse("0S4E1A2N")
    found = spread_by_worth(worth, {"cheap": 1.0, "dear": 2.0}, {"cheap": 4, "dear": 4}, layout, 12 / 24)
    # One of each always runs: 6 of 12. Then 5, 4 (cheap, 1 each) and 7 (dear, 2): 10; 3 / 2 is next and costs 2: 12.
    assert found == {"cheap": (3, 1), "dear": (3, 1)}
    assert spread_by_worth(worth, {"cheap": 1.0, "dear": 1.0}, {"cheap": 4, "dear": 4}, layout, 1.0) == {
        "cheap": (4, 4),
        "dear": (4, 4),
    }
    with pytest.raises(ConfigError, match=r"0\.1 cannot run: 0\.25 of the layers always do"):
        spread_by_worth(worth, {"cheap": 1.0, "dear": 2.0}, {"cheap": 4, "dear": 4}, layout, 0.1)


def test_an_expert_behind_a_poorer_one_is_worth_no_more_than_that() -> None:
    scores = torch.tensor([[2.0, 1.0, 3.0, 1.0]])
    assert worth_of(scores, torch.tensor([[0, 1, 2, 3]]), Layout.parse("0S4E1A1N")).tolist() == [[4.0, 1.0, 1.0, 1.0]]
    assert worth_of(scores, torch.tensor([[2, 0, 1, 3]]), Layout.parse("2S2E1A1N")).tolist() == [[1.0, 1.0]]


def test_the_budget_is_that_of_the_layout_and_of_a_share_at_run_time() -> None:
    _, model, _ = spread("FluxTransformer2DModel")
    layers = find_noise_experts(model).values()
    counts = [layer.active for layer in layers]

    def cost() -> float:
        return sum(layer.fraction * layer.cost for layer in layers) / sum(layer.cost for layer in layers)

    assert 0.375 - 1 / 16 < cost() <= 0.375
    before = run(model, time=900.0)
    used = []
    for share in (0.2, 0.5, 0.9):
        set_active(model, share)
        assert share - 1 / 16 < cost() <= share + 1e-9
        assert not torch.equal(run(model, time=900.0), before)
        used.append(active_parameters(model))
    assert used == sorted(used) and used[-1] < parameter_count(model)
    set_active(model, 0.375)
    assert [layer.active for layer in layers] == counts
    assert_same_but_rounding(run(model, time=900.0), before)
    even = convert(build("FluxTransformer2DModel"), Conversion(experts=Experts(layout="0S16E6A1N")))
    with pytest.raises(ConfigError, match="was not measured"):
        set_active(even, 0.5)


def test_flops_are_those_of_the_mean_call() -> None:
    """A quarter of the units at one level and three at the other cost what half of them do at both."""
    paths = [site.path for site in find_sites(build("DiTTransformer2DModel"))]
    experts, borders = Experts(layout="0S16E8A2N"), (500.0,)
    apart = tuple(LayerExperts(path=path, active=(4, 12), tokens=1.0) for path in paths)
    model = build("DiTTransformer2DModel")
    uneven = count(model, Conversion(experts=experts, borders=borders, spread=apart))
    even = count(model, Conversion(experts=experts, borders=borders))
    assert uneven.flops == even.flops < uneven.dense_flops
    assert uneven.active_parameters == even.active_parameters


@every_model
def test_tokens_are_counted_and_a_fitted_start_is_nearer_at_every_level(cls: str) -> None:
    dense = build(cls)
    calls = recorded(dense, TIMES)
    found = level_importance(dense, calls, 2)
    assert set(found.tokens) == {site.path for site in find_sites(dense)} and min(found.tokens.values()) >= 1
    settings = Conversion(
        experts=Experts(layout=LAYOUT), borders=found.borders, spread=spread_experts(dense, found, LAYOUT)
    )
    model = convert(dense, settings, importance=found.scores)
    seen = {path: {} for path in find_noise_experts(model)}
    layers = find_noise_experts(model)
    numbers, far = {path: layer.active for path, layer in layers.items()}, {}
    for path, layer in layers.items():
        layer.register_forward_pre_hook(lambda own, args, path=path: seen[path].update({own.noise.levels: args[0]}))
    set_active(model, "all")
    for time in TIMES:
        run(model, time=time)
    for path, layer in layers.items():
        layer.active = numbers[path]
    for fitted in (False, True):
        if fitted:
            start_levels(model, calls)
        for path, layer in layers.items():
            for level, x in list(seen[path].items()):
                layer.noise.levels = level
                layer.active = "all"
                wanted = layer(x)
                layer.active = numbers[path]
                far.setdefault((path, level), []).append(float((layer(x) - wanted).square().mean()))
    assert all(after < before or before == 0 for before, after in far.values())
    assert sum(after for _, after in far.values()) < 0.7 * sum(before for before, _ in far.values())
    set_active(model, "all")
    assert_same_but_rounding(run(model, time=900.0), run(dense, time=900.0))


def test_a_unit_that_others_stand_for_is_made_up_for() -> None:
    """Every second unit is the one before it: half of them, fitted, are the dense layer."""
    dense = build("DiTTransformer2DModel")
    with torch.no_grad():
        for site in find_sites(dense):
            part = site.read()
            for held in (part.up_HD, part.up_bias_H):
                held[1::2] = held[::2]  # pyright: ignore
    scores = {site.path: (torch.arange(site.read().hidden) % 2 == 0).float() for site in find_sites(dense)}
    border = (told(dense, TIMES[0]) + told(dense, TIMES[1])) / 2
    settings = Conversion(experts=Experts(layout="0S2E1A2W"), borders=(border,))
    model = convert(dense, settings, importance=scores)
    wanted = [run(dense, time=time) for time in TIMES]
    before = [float((run(model, time=time) - one).square().mean()) for time, one in zip(TIMES, wanted, strict=True)]
    start_levels(model, recorded(dense, TIMES))
    after = [float((run(model, time=time) - one).square().mean()) for time, one in zip(TIMES, wanted, strict=True)]
    assert all(a < 1e-3 * b for a, b in zip(after, before, strict=True)), (before, after)
    with pytest.raises(ConfigError, match="no weights by noise level to fit"):
        start_levels(convert(dense, Conversion(experts=Experts(layout="0S2E1A1N"))), [])


def test_matrices_are_laid_out_once_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, _ = spread("DiTTransformer2DModel")
    layer = next(iter(find_noise_experts(model).values()))
    laid: list[int | None] = []
    real = layer._lay_out
    monkeypatch.setattr(layer, "_lay_out", lambda level, dtype: laid.append(level) or real(level, dtype))
    for time in (900.0, 900.0, 900.0, 100.0, 100.0, 900.0):
        run(model, time=time)
    assert laid == [1, 0], "small layers stay laid out for every level"
    monkeypatch.setattr("outpace.accel.experts.by_noise.MOST_BYTES", 0)
    with torch.no_grad():
        layer.bias.add_(1.0)  # pyright: ignore
    for time in (900.0, 900.0, 100.0, 100.0, 900.0):
        run(model, time=time)
    assert laid[2:] == [1, 0, 1], "large ones for that of the call alone"
    mixed(model, "DiTTransformer2DModel", (900.0, 100.0))
    mixed(model, "DiTTransformer2DModel", (900.0, 100.0))
    assert laid[5:] == [0], "a batch at several levels keeps them all"
    with torch.no_grad():
        layer.bias.mul_(2.0)  # pyright: ignore
    run(model, time=900.0)
    model.double().float()
    run(model, time=900.0)
    assert laid[6:] == [1, 1]


def test_slips_are_told() -> None:
    dense = build("DiTTransformer2DModel")
    found = measured(dense)
    with pytest.raises(ConfigError, match="name noise levels, as 0S16E6A4W does"):
        spread_experts(dense, found, "1S12E2A")
    one = LayerExperts(path="x", active=(3,), tokens=1.0)
    experts = Experts(layout="0S16E6A1N")
    with pytest.raises(ConfigError, match="does not have"):
        convert(dense, Conversion(experts=experts, spread=(one,)))
    with pytest.raises(ConfigError, match="2 noise levels that run 0 to 16 experts each"):
        Conversion(experts=Experts(layout="0S16E6A2N"), borders=(0.5,), spread=(one,))
    settings = Conversion(experts=experts, spread=(one,))
    assert Conversion.from_dict(settings.to_dict()) == settings
