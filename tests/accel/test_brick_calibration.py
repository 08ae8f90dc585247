"""Schedules of bricks that are found: what was asked is kept, by measured costs and by real runs, every time."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import TinyPipeline

from outpace.accel import BrickSkipping, accelerate, find_family
from outpace.accel.calibration.brick_costs import CostTable, group_blocks, measure
from outpace.accel.calibration.brick_plan import Tilt, bricks_of, drawn, plan, saved, single_steps, that_saves, uniform
from outpace.accel.calibration.bricks import Calibrated, Calibration
from outpace.errors import ConfigError

STEPS = 16


def table(costs: list[list[float]], steps: int = 12) -> CostTable:
    """Bricks of one block that cost as much as is told, [bin][brick]; twice as much at a higher age."""
    bins = len(costs)
    edges = [round(i * steps / bins) for i in range(bins + 1)]
    return CostTable(
        groups=tuple((i, i) for i in range(len(costs[0]))),
        levels=tuple(1 - i / steps for i in range(steps)),
        bins=tuple((a, b - 1) for a, b in pairwise(edges)),
        single=[[[cost, 2 * cost] for cost in row] for row in costs],
        every=[[sum(row), 2 * sum(row)] for row in costs],
    )


def test_the_cheapest_is_left_out_first() -> None:
    shares = plan(table([[1.0, 1.0], [0.1, 1.0]]), 0.1, Tilt())
    assert shares[1][0] > 0 == shares[0][0] == shares[0][1] == shares[1][1]
    # Together, bricks count for nothing: a range of noise levels is left out as a whole.
    shares = plan(table([[1.0, 1.0], [0.1, 1.0]]), 0.25, Tilt(apart=0.0))
    assert shares[1][0] == shares[1][1] == 0.5 and not any(shares[0])


def test_doubts_move_what_is_left_out() -> None:
    costs = table([[1.0, 1.0], [1.0, 1.0]])
    assert plan(costs, 0.1, Tilt(bins=(1.0, 0.0)))[0] == (0.0, 0.0)
    assert plan(costs, 0.1, Tilt(bricks=(1.0, 0.0)))[0][0] == 0.0


@pytest.mark.parametrize("saves", [0.1, 0.25, 0.5, 0.7])
def test_a_plan_saves_what_is_asked_and_is_counted_as_it_runs(saves: float) -> None:
    pipe = TinyPipeline("FluxTransformer2DModel", num_layers=2, num_single_layers=6)
    found = measure(pipe, lambda: pipe(steps=STEPS), bricks=4, bins=4, looks=1)
    for shares in (
        that_saves(found, saves, lambda asked: plan(found, asked, Tilt())),
        that_saves(found, saves, lambda asked: uniform(found, asked)),
    ):
        assert saved(found, shares) == pytest.approx(saves, abs=0.03)
        with accelerate(pipe, BrickSkipping(schedule=bricks_of(found, shares))) as run:
            pipe(steps=STEPS)
        assert run.trace.totals()["skipped"] / (STEPS * 8) == pytest.approx(saved(found, shares))
    single = single_steps(found)
    first, again, other = (drawn(single, saves, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert saved(single, first) == pytest.approx(saves, abs=0.02)


def test_groups_lie_in_one_stack_and_cover_every_block() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel", num_layers=2, num_single_layers=7)
    groups = group_blocks(find_family(pipe.transformer), pipe.transformer, 4)
    assert [i for first, last in groups for i in range(first, last + 1)] == list(range(9))
    assert any(last == 1 for _, last in groups) and len(groups) == 4
    assert len(group_blocks(find_family(pipe.transformer), pipe.transformer, 99)) == 9


@pytest.mark.parametrize("cls", ["DiTTransformer2DModel", "FluxTransformer2DModel", "WanTransformer3DModel"])
def test_what_is_measured_is_what_a_block_changes(cls: str) -> None:
    """A brick that ran on the same input a step before costs nothing; a run is not disturbed by being looked at."""
    pipe = TinyPipeline(cls)
    plain = pipe(steps=8, guidance="separate")
    seen: list[torch.Tensor] = []
    found = measure(pipe, lambda: seen.append(pipe(steps=8, guidance="separate")), bricks=3, bins=2, looks=2)
    assert torch.equal(seen[0], plain) and torch.equal(pipe(steps=8, guidance="separate"), plain)
    costs = [cost for row in found.single for ages in row for cost in ages]
    assert all(math.isfinite(cost) and cost > 0 for cost in costs)
    constant = torch.zeros(1, *pipe.model.latent)

    def still() -> None:
        pipe.scheduler.set_timesteps(8)
        for moment in pipe.scheduler.timesteps:
            pipe.model.call(pipe.transformer, constant, torch.full((1,), 620.0), torch.ones(1, 5, 16))
            pipe.scheduler.step(constant, moment, constant)

    still_found = measure(pipe, still, bricks=3, bins=2, looks=2)
    assert max(cost for row in still_found.single for ages in row for cost in ages) < 1e-5


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    with torch.no_grad():
        pipe = TinyPipeline("DiTTransformer2DModel", num_layers=4)
        return Calibration(bricks=4, bins=4, looks=1, trials=4).bench(pipe, lambda: pipe([0, 1], steps=STEPS))


@pytest.mark.parametrize("as_bytes", [False, True])
def test_pictures_decide_where_a_run_returns_them(as_bytes: bool) -> None:
    """What the pictures do not show costs nothing, however far the latents are."""
    pipe = TinyPipeline("DiTTransformer2DModel", num_layers=4)

    def psnr(shown: float) -> float:
        def run() -> SimpleNamespace:
            pictures = 0.5 + shown * pipe([0, 1], steps=8).clamp(-1, 1).movedim(1, -1).numpy()
            return SimpleNamespace(images=list((pictures * 255).round().astype("uint8") if as_bytes else pictures))

        bench = Calibration(bricks=2, bins=2, looks=1, trials=0).bench(pipe, run)
        return bench.psnr(bench.evenly(0.4))

    assert psnr(0.0) == pytest.approx(120) and psnr(0.25) < 80


def test_a_saving_is_kept_and_never_worse_than_uniform(calibrated: Calibrated) -> None:
    found = calibrated.saving(0.3)
    assert calibrated.psnr(found) >= calibrated.psnr(calibrated.evenly(0.3))
    assert calibrated.saving(0.3) == found


def test_a_target_is_kept_by_leaving_out_as_much_as_it_allows(calibrated: Calibrated) -> None:
    easy, hard = (calibrated.psnr(calibrated.saving(saves)) for saves in (0.5, 0.1))
    assert easy < hard
    found = calibrated.keeping((easy + hard) / 2)
    assert found.schedule and calibrated.psnr(found) >= (easy + hard) / 2
    assert calibrated.keeping(500.0) == BrickSkipping()


def shown(**changes: Any) -> Callable[[], object]:
    pipe = TinyPipeline("DiTTransformer2DModel")
    given: dict[str, Any] = {"prompts": lambda: pipe(steps=8), "saves": 0.2, **changes}
    return lambda: BrickSkipping.calibrate(pipe, given.pop("prompts"), **given)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"saves": None}, "either a target"),
        ({"target": 30.0}, "either a target"),
        ({"saves": 0.0}, "above 0"),
        ({"saves": 0.99}, "from 0 to 0.8"),
        ({"saves": None, "target": float("nan")}, "target must be a number"),
        ({"trials": -1}, "trials must be a whole number"),
        ({"bricks": 0}, "bricks must be a whole number"),
        ({"prompts": []}, "a list of prompts"),
        ({"prompts": "a red circle"}, "a list of prompts"),
        ({"prompts": [3]}, "neither prompt nor class_labels"),
    ],
)
def test_what_cannot_be_calibrated_is_one_clear_error(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        shown(**changes)()


def test_a_run_that_is_too_short_says_so() -> None:
    pipe = TinyPipeline("DiTTransformer2DModel")
    with pytest.raises(ConfigError, match="run of 1 steps"):
        BrickSkipping.calibrate(pipe, lambda: pipe(steps=1), saves=0.2)
