"""The search for a schedule, on a pipeline whose pictures are as good as a rule says: what it finds, asks and pays."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from outpace.accel import ScheduledTaylor
from outpace.accel.calibration import schedule
from outpace.accel.calibration.schedule import CONVERGED, KINDS, Bench, Candidate, laid
from outpace.errors import ConfigError, InputError

STEPS = 12
Quality = Callable[[tuple[int, ...], float | None, float | None, int], float]
"""PSNR in dB of a prompt under (computed steps, order, replay)."""


class Known:
    """A pipeline of prompts a, b, c, ... whose pictures are off by what `quality` says under a schedule."""

    def __init__(self, quality: Quality) -> None:
        self.scheduler, self.quality, self.methods, self.asked = FlowMatchEulerDiscreteScheduler(), quality, [], []

    def __call__(self, prompt: list[str], *, num_inference_steps: int = STEPS, generator: Any = None) -> Any:
        self.scheduler.set_timesteps(num_inference_steps)
        numbers = tuple("abcdef".index(one) for one in prompt)
        assert [one.initial_seed() for one in generator] == list(numbers)
        off = torch.zeros(len(prompt))
        if not self.methods:
            self.asked.append(("plain", numbers))
        elif self.methods[0].name == "solver":
            self.asked.append(("converged", num_inference_steps))
            off += 0.5
        else:
            method, levels = self.methods[0], [float(s) for s in self.scheduler.sigmas[:-1]]
            places = tuple(min(range(STEPS), key=lambda i: abs(levels[i] - u)) for u in method.noise_levels)
            self.asked.append((places, method.order, method.replay, numbers))
            off = torch.tensor([10 ** (-self.quality(places, method.order, method.replay, i) / 20) for i in numbers])
        return SimpleNamespace(images=(0.25 + off)[:, None, None, None].expand(-1, 2, 2, 3))


class Told:
    """In the place of an acceleration: says to the pipeline what it would run with."""

    def __init__(self, pipe: Known, methods: list[Any]) -> None:
        self.pipe, self.methods = pipe, methods

    def __enter__(self) -> None:
        self.pipe.methods = self.methods

    def __exit__(self, *_: object) -> None:
        self.pipe.methods = []


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "Acceleration", Told)


def bench(quality: Quality, count: int = 6, **how: Any) -> tuple[Bench, Known]:
    pipe = Known(quality)
    asked = {
        "speedup": 3.0,
        "reference": "plain",
        "cost": 1e9,
        "resume": None,
        "progress": False,
        "seed": 0,
        "call": {},
    }
    return Bench(pipe, list("abcdef"[:count]), **{**asked, **how}), pipe


def near(places: tuple[int, ...]) -> Quality:
    """The nearer to some steps, the better; a forecast and replay of degree 2 are 3 dB better than others."""
    return lambda found, order, replay, _: (
        40.0
        - sum(abs(a - b) for a, b in zip(found, places, strict=True))
        + (3.0 if (order, replay) == (2.0, 2.0) else 0)
    )


def test_layouts() -> None:
    assert laid(12, 4, 1.0, 1.0) == (0, 3, 6, 9)
    assert laid(12, 4, 1.0, 0.5) == (0, 3, 7, 10), "the end is further off: the last run is half as long"
    assert laid(12, 4, 2.0, 1.0) == (0, 1, 3, 7)
    assert laid(5, 4, 1.8, 1.0) == (0, 1, 2, 3), "no step twice"
    assert laid(6, 5, 1.0, 0.1) == (0, 1, 3, 4, 5), "room is left for the later ones"
    assert laid(7, 1, 1.4, 0.55) == (0,)


def test_the_best_schedule_is_found_by_layout_kind_and_moves() -> None:
    target = (0, 2, 4, 9)
    assert target not in {laid(STEPS, 4, early, last) for early in schedule.EARLY for last in schedule.LAST}
    judge, pipe = bench(near(target))
    found = judge.found()
    wanted = [judge.levels[place] for place in target]
    assert found.noise_levels == pytest.approx(wanted, rel=1e-5)
    assert (found.speedup, found.steps, found.order, found.replay) == (3.0, STEPS, 2.0, 2.0)
    asked = [one for one in pipe.asked if len(one) == 4]
    # every layout on two prompts, then every kind of the best two
    layouts = list(dict.fromkeys(laid(STEPS, 4, early, last) for early in schedule.EARLY for last in schedule.LAST))
    assert [one[0] for one in asked[: len(layouts)]] == layouts
    assert all(one[1:] == (None, None, (0, 1)) for one in asked[: len(layouts)])
    kinds = asked[len(layouts) : len(layouts) + 2 * (len(KINDS) - 1)]
    assert {one[1:3] for one in kinds} == set(KINDS[1:]) and len({one[0] for one in kinds}) == 2
    # the best three on four, of which two are known; everything on all six last
    rest = asked[len(layouts) + len(kinds) :]
    assert [one[3] for one in rest[:4]] == [(2, 3), (2, 3), (2, 3), (4, 5)]
    assert {one[3] for one in rest[4:]} == {(0, 1, 2, 3), (4, 5)}
    # every pair of a schedule and a prompt was asked once
    pairs = [(one[:3], prompt) for one in asked for prompt in one[3]]
    assert len(pairs) == len(set(pairs))
    assert judge.spent == pytest.approx(6 + len(pairs) * 4 / STEPS)


def test_nothing_is_sought_where_every_step_is_computed() -> None:
    judge, pipe = bench(near((0,)), speedup=1.01)
    assert judge.found() == ScheduledTaylor(speedup=1.01) and pipe.asked == [("plain", tuple(range(6)))]


def test_what_is_judged_is_the_mean_over_prompts() -> None:
    judge, _ = bench(lambda places, order, replay, prompt: 20.0 + prompt)
    candidate = Candidate((0, 3, 6, 9), None, None)
    assert judge.psnr(candidate, range(2)) == pytest.approx(20.5, abs=1e-3)
    assert judge.psnr(candidate, range(6)) == pytest.approx(22.5, abs=1e-3)


def test_moves_are_confirmed_on_all_prompts() -> None:
    start, tempting, good = (0, 3, 6, 9), (0, 3, 5, 9), (0, 3, 6, 8)

    def quality(places: tuple[int, ...], _order: object, _replay: object, prompt: int) -> float:
        return {start: 30.0, tempting: 33.0 if prompt < 4 else 10.0, good: 31.0}.get(places, 20.0)

    judge, _ = bench(quality)
    best = judge._moved(Candidate(start, 1.0, 2.0), range(4))
    assert best == Candidate(good, 1.0, 2.0), "better on four prompts, and on all of them"
    judge, _ = bench(lambda *_: 30.0, 4, cost=20.0)
    assert judge._moved(Candidate(start, 1.0, 2.0), range(4)).places == start, "as good is no reason to move"
    # with no more prompts than are looked at there is nothing to confirm
    judge, pipe = bench(near((0, 3, 6, 8)), 4)
    assert judge._moved(Candidate(start, 1.0, 2.0), range(4)).places == (0, 3, 6, 8)
    assert all(one[3] == (0, 1, 2, 3) for one in pipe.asked if len(one) == 4)


def test_neighbours_are_a_step_away_the_middle_ones_first() -> None:
    judge, _ = bench(near((0, 3, 6, 9)))
    found = [one.places for one in judge._neighbours(Candidate((0, 1, 6, 11), None, 2.0))]
    assert found == [(0, 1, 5, 11), (0, 1, 5, 10), (0, 1, 7, 11), (0, 2, 6, 11), (0, 1, 6, 10)]
    assert all(one.replay == 2.0 and one.order is None for one in judge._neighbours(Candidate((0, 4), None, 2.0)))


@pytest.mark.parametrize(("reference", "least"), [("plain", 4.0), ("converged", 12.0)])
def test_the_cost_has_to_pay_for_the_reference_and_as_much_again(reference: str, least: float) -> None:
    judge, pipe = bench(near((0, 3, 6, 9)), 2, reference=reference, cost=least)
    assert judge.spent == least - 2.0
    assert judge._affords(Candidate((0, 3, 6, 9), None, None), range(2))
    assert ("converged", CONVERGED * STEPS) in pipe.asked or reference == "plain"
    with pytest.raises(ConfigError, match=f"2 prompts cost {least - 2:g} plain runs .* give a cost of {least:g} or"):
        bench(near((0, 3, 6, 9)), 2, reference=reference, cost=least - 0.01)


@pytest.mark.parametrize("cost", [8.0, 10.0, 17.5])
def test_as_much_is_asked_as_the_cost_allows_and_no_more(cost: float) -> None:
    judge, _ = bench(near((0, 2, 4, 9)), 2, cost=cost)
    judge.found()
    assert cost - 2 * 4 / STEPS < judge.spent <= cost + 1e-9
    judge.spent = cost - 2 * 4 / STEPS
    fresh = Candidate((0, 1, 2, 3), 0.0, 0.0)
    assert judge._affords(fresh, range(2))
    judge.spent += 1e-6
    assert not judge._affords(fresh, range(2)) and judge._affords(fresh, range(1))


def test_moves_end_where_their_confirmation_is_not_paid_for() -> None:
    start, better = (0, 3, 6, 9), (0, 3, 5, 9)
    for left, found in ((1.5, start), (2.5, better)):  # the start on all six prompts, a move on four, two more of it
        judge, _ = bench(near(better), cost=1e9)
        judge.cost = 6 + (6 + 4 + left) / 3
        assert judge._moved(Candidate(start, 1.0, 2.0), range(4)).places == found


@pytest.mark.parametrize("given", [None, STEPS])
def test_pictures_are_held_against_the_converged_ones(given: int | None) -> None:
    call: dict[str, Any] = {} if given is None else {"num_inference_steps": given}
    before = dict(call)
    judge, pipe = bench(lambda *_: 20.0, 2, reference="converged", call=call)
    # off by 0.1 from plain pictures, which are 0.5 from converged ones
    assert judge.psnr(Candidate((0, 3, 6, 9), None, None), range(2)) == pytest.approx(-20 * math.log10(0.4))
    assert call == before and len(judge.levels) == judge.total == STEPS
    assert pipe.asked[1] == ("converged", 4 * STEPS)


def test_what_was_measured_is_kept_and_not_asked_again(tmp_path: Path) -> None:
    file, quality = tmp_path / "deep" / "cal.json", near((0, 2, 4, 9))
    judge, pipe = bench(quality, resume=file)
    found = judge.found()
    kept = json.loads(file.read_text())
    assert sum(map(len, kept["known"].values())) == sum(len(one[3]) for one in pipe.asked if len(one) == 4)
    again, other = bench(quality, resume=file)
    assert again.found() == found and other.asked == [("plain", tuple(range(6)))] and again.spent == 6
    assert kept["question"] == {
        "pipeline": "Known", "prompts": list("abcdef"), "speedup": 3.0, "reference": "plain", "seed": 0, "call": {},
    }  # fmt: skip
    for changes in ({"speedup": 2.0}, {"seed": 1}, {"reference": "converged"}, {"count": 5}, {"call": {"guidance": 1}}):
        with pytest.raises(InputError, match="belongs to another calibration"):
            bench(quality, **{"resume": file, **changes})
    file.write_text("{")
    with pytest.raises(InputError, match="cannot read the calibration"):
        bench(quality, resume=file)
    judge, _ = bench(quality, reference="converged", call={"num_inference_steps": STEPS})
    assert (judge._question["reference"], judge._question["call"]) == (
        "4 times the steps",
        {"num_inference_steps": "12"},
    )


def test_one_step_is_computed_where_no_more_is_asked_for() -> None:
    judge, _ = bench(near((0,)), speedup=40.0)
    assert judge.budget == 1 and judge.found().noise_levels == (1.0,)


def test_a_bar_shows_what_was_spent(capsys: pytest.CaptureFixture[str]) -> None:
    judge, _ = bench(near((0, 2, 4, 9)), cost=20.0, progress=True)
    with judge.bar as bar:
        judge.found()
        assert (bar.total, bar.n, bar.unit, bar.desc, bar.leave) == (20.0, judge.spent, "run", "calibrating", False)
    assert "calibrating" in capsys.readouterr().err
    bench(near((0, 2, 4, 9)), cost=20.0)
    assert not capsys.readouterr().err


def test_a_method_is_calibrated_with_its_own_settings() -> None:
    pipe, target = Known(near((0, 2, 4, 9))), (0, 2, 4, 9)
    found = ScheduledTaylor.calibrate(pipe, list("abcdef"), speedup=3.0, cost=1e9)
    pipe.scheduler.set_timesteps(STEPS)
    assert found.noise_levels == pytest.approx([float(pipe.scheduler.sigmas[i]) for i in target], rel=1e-5)
    few = Known(near((0, 2, 4)))
    ScheduledTaylor.calibrate(few, list("abcdef"))
    assert next(len(one[0]) for one in few.asked if len(one) == 4) == 3, "4 times fewer of 12 steps"


def test_settings_of_a_calibration_are_held_to_their_ranges() -> None:
    pipe = Known(near((0,)))
    for how, says in (({"speedup": 1.0}, "above 1"), ({"reference": "exact"}, "reference"), ({"cost": 0.5}, "cost")):
        with pytest.raises(ConfigError, match=says):
            ScheduledTaylor.calibrate(pipe, ["a", "b"], **how)
