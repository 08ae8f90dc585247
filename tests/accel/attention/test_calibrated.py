"""Densities by layer, head and noise level: how they are spelt, run, planned and found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch
from larger import larger
from tiny import BlockCounter, TinyPipeline

from outpace.accel import METHODS, AdaSpa, accelerate
from outpace.accel.calibration.attention import NEAR, AttentionCalibration
from outpace.accel.calibration.attention_costs import DENSITIES, Look, SparseProbe, Variant, at_looks
from outpace.accel.calibration.attention_plan import (
    SEARCH,
    AttentionTable,
    Reading,
    at_density,
    dense_steps,
    hull,
    plan,
)
from outpace.accel.densities import LETTERS, Densities, density_of, letter_of, range_at
from outpace.errors import ConfigError

WAN = "WanTransformer3DModel"
LAYERS, HEADS, STEPS = 4, 2, 12
FREE: dict[str, Any] = {"block": 16, "min_tokens": 1, "min_gain": 0.0, "slack": 0.0}


@pytest.fixture
def pipe() -> TinyPipeline:
    return TinyPipeline(larger(WAN))


def test_letters_are_decibels() -> None:
    assert [letter_of(density_of(letter)) for letter in LETTERS] == list(LETTERS)
    assert density_of("a") == 1.0 and density_of("k") == pytest.approx(0.1)
    assert density_of("d") == pytest.approx(0.5, abs=2e-3) and letter_of(1e-9) == LETTERS[-1]


def test_a_schedule_survives_text_and_a_file() -> None:
    method = AdaSpa(schedule="0..0.3:gg-ka/0.3..0.8:ad-da")
    assert [r.high for r in method.ranges] == [0.8, 0.3], "the noisiest first"
    assert AdaSpa(schedule=method.ranges) == method == AdaSpa(schedule=method.schedule)
    assert METHODS["adaspa"].from_dict(method.to_dict()) == method
    assert [range_at(method.ranges, u) for u in (1.0, 0.8, 0.31, 0.3, 0.0)] == [None, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ("0..1:aZ", "cannot read"),
        ("0..x:aa", "no number"),
        ("0..1:aa-a", "as many letters"),
        ("0..0.5:aa/0.4..1:aa", "overlap"),
        ("0..0.5:aa/0.5..1:aa-aa", "same layers"),
        ("0.5..2:aa", "noise level"),
    ],
)
def test_slips_in_a_schedule_say_what_is_wrong(schedule: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        AdaSpa(schedule=schedule)
    with pytest.raises(ConfigError, match="one target"):
        AdaSpa(schedule="0..1:dd", recall=0.9)


def test_a_schedule_of_another_model_is_refused_or_left_dense(pipe: TinyPipeline) -> None:
    with pytest.raises(ConfigError, match="for 3 layers"):
        accelerate(pipe, AdaSpa(schedule="0..1:gg-gg-gg", **FREE))
    with accelerate(pipe, AdaSpa(schedule="0..1:ggg-ggg-ggg-ggg", **FREE)) as run:
        pipe(steps=6)
    assert set(run.trace.attention.calls) == {"fallback"}
    assert any("2 heads" in warning for warning in run.trace.warnings)


def test_everything_kept_is_the_plain_pipeline(pipe: TinyPipeline) -> None:
    plain = pipe(steps=6)
    with accelerate(pipe, AdaSpa(schedule="0..1:aa-aa-aa-aa", **FREE)) as run:
        assert torch.equal(pipe(steps=6), plain)
    assert set(run.trace.attention.calls) == {"dense"}


def test_every_head_keeps_what_its_layer_and_noise_level_say(pipe: TinyPipeline) -> None:
    method = AdaSpa(schedule="0.3..0.9:da-aa-gg-ag/0..0.3:kk-gd-gg-aa", searches=(0.25,), **FREE)
    plain = pipe(steps=STEPS)
    with accelerate(pipe, method) as run:
        made = pipe(steps=STEPS)
    record = run.trace.attention
    levels = {call.step: call.sigma for call in run.trace.calls}
    assert not torch.equal(made, plain)
    for search in record.searches:
        layer = int(search.layer.split(".")[0])
        asked = [method.ranges[at].of(layer) for at in range(2)]
        near = [search.density == pytest.approx(one, abs=0.07) for one in asked]
        assert any(near), (search.layer, search.density, asked)
    # One search serves both ranges; a layer that is dense in the first is searched when the second begins.
    first = max(step for step, level in levels.items() if level > 0.3) + 1
    steps = {int(s.layer.split(".")[0]): s.step for s in record.searches}
    assert steps == {0: 2, 1: first, 2: 2, 3: 2}
    noisy, late = sum(s > 2 and u > 0.3 for s, u in levels.items()), sum(u <= 0.3 for u in levels.values())
    assert record.calls["sparse"] == 3 * noisy + 2 * late + (late - 1)


def probed(pipe: TinyPipeline, **settings: Any) -> tuple[AttentionTable, torch.Tensor]:
    """What is measured in one run, and what that run makes."""
    probe, made = SparseProbe(pipe, AdaSpa(**{**FREE, "density": 0.25, **settings}), list(at_looks(STEPS, 3))), []
    looks = probe.run(lambda: made.append(pipe([0, 1], steps=STEPS)))
    return AttentionTable(levels=probe.levels, looks=tuple(looks), lost=(1.0,) * 3), made[0]


def test_looking_aside_changes_nothing_and_leaves_nothing(pipe: TinyPipeline) -> None:
    plain = pipe([0, 1], steps=STEPS)
    table, made = probed(pipe)
    torch.testing.assert_close(made, plain, rtol=1e-5, atol=1e-5)
    assert table.shape == (LAYERS, HEADS) and [look.step for look in table.looks] == [2, 6, 10]
    assert torch.equal(pipe([0, 1], steps=STEPS), plain), "the pipeline is as it was"


def test_nothing_left_out_is_no_error(pipe: TinyPipeline) -> None:
    table, _ = probed(pipe, density=1.0)
    for look in table.looks:
        assert max(look.errors.values()) < 1e-5 and len(look.errors) == LAYERS
        assert all(d == 1.0 for layer in look.density for d in layer)
        assert all(list(own) == sorted(own) for layer in look.own for own in layer), "fewer blocks, more error"


def test_a_call_aside_begins_at_its_first_layer_and_is_the_same_from_the_front(
    pipe: TinyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [Variant(layers=(2,)), Variant(layers=(1, 3)), Variant(layers=(2,), head=1), Variant(layers=(2,), age=1)]
    probe = SparseProbe(pipe, AdaSpa(density=0.25, **FREE), [4, 5], lambda layers, heads: asked)
    counter = BlockCounter(list(pipe.transformer.blocks))
    first, second = probe.run(lambda: pipe(steps=STEPS))
    counter.remove()
    # 12 plain calls; aside, block 0 never runs, 1 for one variant, 2 for all three and 3 as well, a fourth when aged.
    assert counter.counts == [STEPS, STEPS + 2, STEPS + 3 + 4, STEPS + 3 + 4]
    assert 0 < first.errors[asked[2]] < first.errors[asked[0]] and asked[3] not in first.errors
    assert second.errors[asked[3]] >= 0.99 * second.errors[asked[0]]
    monkeypatch.setattr(type(probe._engine), "block_of", lambda *_: 0)
    whole, _ = probe.run(lambda: pipe(steps=STEPS))
    for variant, error in first.errors.items():
        assert whole.errors[variant] == pytest.approx(error, rel=1e-3)


def made_table(own: float = 4.0, lost: tuple[float, float] = (1.0, 1.0)) -> AttentionTable:
    """Ten steps in two ranges, two layers of two heads; the second layer's errors are ten times the first's."""
    levels = tuple(1.0 - step / 10 for step in range(10))
    looks = [
        Look(
            step=step,
            level=levels[step],
            weight=0.1,
            errors={Variant(layers=(0,)): 0.01, Variant(layers=(1,)): 0.1},
            density=[[0.25, 0.25], [0.25, 0.25]],
            recall=[[0.9, 0.9], [0.9, 0.9]],
            own=[[[own**d for d in range(len(DENSITIES))]] * 2] * 2,
            kept=[[own, own]] * 2,
        )
        for step in (2, 7)
    ]
    return AttentionTable(levels=levels, looks=tuple(looks), lost=lost)


def test_errors_between_the_measured_densities() -> None:
    own = [1.0, 4.0, 16.0, 64.0]
    assert [at_density(own, d) for d in DENSITIES] == pytest.approx(own)
    assert at_density(own, 0.5 / math.sqrt(2)) == pytest.approx(2.0) and at_density(own, 1 / 32) == pytest.approx(256.0)
    assert 0 < at_density(own, 0.8) < 0.5 and at_density([0.0] * 4, 0.1) == 0.0
    assert at_density([0.0, 1e-3, 1.0, 2.0], 0.4) < 1e-3


def test_the_hull_takes_the_best_bargain_first() -> None:
    curve = [(1.0, 0.0, "a"), (0.5, 5.0, "b"), (0.4, 1.0, "c"), (0.2, 3.0, "d"), (0.1, 9.0, "e")]
    assert [letter for _, letter, _ in hull(curve)] == ["c", "d", "e"]
    rises = [rise for rise, _, _ in hull(curve)]
    assert rises == sorted(rises) and sum(less for _, _, less in hull(curve)) == pytest.approx(0.9)


def work_of(ranges: Sequence[Densities], levels: Sequence[float], dense: float) -> float:
    """Share of a dense run's attention that a schedule computes, its search included."""
    first = dense_steps(len(levels), dense)
    total = first + SEARCH
    for level in levels[first:]:
        at = range_at(ranges, level)
        layers = 1 if at is None else len(ranges[at].layers)
        total += 1.0 if at is None else sum(fmean(ranges[at].of(i)) for i in range(layers)) / layers
    return total / len(levels)


@pytest.mark.parametrize("saves", [0.2, 0.4, 0.6])
@pytest.mark.parametrize("dense", [0.1, 0.3])
def test_a_plan_saves_what_it_is_asked_and_spares_what_costs(saves: float, dense: float) -> None:
    table = made_table()
    found = plan(table, saves, Reading(dense=dense))
    assert found is not None
    work = work_of(found, table.levels, dense)
    assert 1 - saves - 0.06 <= work <= 1 - saves + 1e-9
    for ranges in found:
        assert sum(ranges.of(0)) <= sum(ranges.of(1)), "the layer that costs ten times as much keeps more"
    assert found[0].high == 1.0 and found[-1].low == 0.0
    early = plan(made_table(lost=(100.0, 1.0)), saves, Reading(dense=dense))
    assert early is not None
    assert sum(map(sum, map(early[0].of, range(2)))) > sum(map(sum, map(found[0].of, range(2))))
    assert plan(table, 0.99, Reading(dense=dense)) is None


def test_calibrating_finds_what_saves_as_much_and_costs_less_than_the_same_for_all(pipe: TinyPipeline) -> None:
    saves, run = 0.4, lambda: pipe([0, 1], steps=STEPS)
    bench = AttentionCalibration(looks=3, trials=3, block=16, min_tokens=1).bench(pipe, run)
    method = bench.saving(saves)
    assert bench.runs <= 3 + 1 + 3 and len(bench.alone) == 3 and bench.runs == len(bench.tried)
    assert all(lost > 0 and math.isfinite(lost) for lost in bench.table.lost)
    with accelerate(pipe, method) as handle:
        run()
    assert handle.trace.attention.totals()["work"] == pytest.approx(1 - saves, abs=0.06)
    layers = ("ff",) * LAYERS
    alike = replace(method, schedule=(Densities(low=0.0, high=1.0, layers=layers),))
    with accelerate(pipe, alike) as handle:
        run()
    assert handle.trace.attention.totals()["work"] <= 1 - saves + 0.1
    assert bench.psnr(method) > bench.psnr(alike)
    with pytest.raises(ConfigError, match="no density saves"):
        bench.saving(0.95)


def test_one_recall_for_everything_is_tried_beside_the_plans(
    pipe: TinyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = 0.2
    bench = AttentionCalibration(looks=2, trials=9, block=16, min_tokens=1).bench(pipe, lambda: pipe(steps=8))
    method = bench.saving(saves)
    plans = [one for one in bench.tried if one.schedule][len(bench.alone) :]
    *_, alike = (one for one in bench.tried if not one.schedule)
    assert 0.5 < alike.recall < 1.0 and abs(bench.left_out(alike) - saves) <= NEAR
    assert bench.psnr(method) == max(map(bench.psnr, (*plans, alike)))
    found = bench.psnr
    for favoured in (alike, plans[0]):
        monkeypatch.setattr(bench, "psnr", lambda one, favoured=favoured: 99.0 if one == favoured else found(one))
        assert bench.saving(saves) == favoured
