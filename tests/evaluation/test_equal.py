"""Equal time, equal fidelity and dominance: lines whose answers are known, and properties of any curve."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outpace.evaluation import Contender, Request, Result, build_results
from outpace.evaluation.cells import Curve, compare_at
from outpace.evaluation.dominance import dominated_shares
from outpace.evaluation.equal import compare_at_levels, levels_of
from outpace.evaluation.memory import Memory
from outpace.evaluation.pareto import Point, at_quality, at_quality_of_draws, at_speedup
from outpace.evaluation.report.equal import equal_fidelity_table
from outpace.evaluation.study import Row
from outpace.evaluation.timing import Pair, Span

REQUESTS = 16
LUCK = np.linspace(-3, 3, REQUESTS)
SPEEDS = (1.5, 2.0, 3.0, 4.0)
curves = st.lists(st.tuples(st.floats(1, 8), st.floats(10, 90)), min_size=1, max_size=10)


@settings(deadline=None)
@given(curves, st.floats(5, 95))
def test_the_speed_at_a_quality_lies_on_the_curve(points: list[tuple[float, float]], level: float) -> None:
    speeds, qualities = np.array(points).T
    found = at_quality(speeds, qualities, level)
    if found == 0:
        assert all(at_speedup(speeds, qualities, s) < level for s in speeds)
    elif math.isinf(found):
        assert at_speedup(speeds, qualities, speeds.max()) >= level
    else:
        assert speeds.min() * (1 - 1e-9) <= found <= speeds.max() * (1 + 1e-9)
        beyond = [s for s in speeds if s > found * (1 + 1e-9)]
        assert beyond and all(at_speedup(speeds, qualities, s) < level for s in beyond)


@settings(deadline=None)
@given(st.floats(20, 60), st.floats(1, 30), st.floats(0, 1))
def test_on_a_falling_line_it_is_the_inverse(top: float, fall: float, share: float) -> None:
    speeds = np.array([1.0, 2.0, 3.5, 8.0])
    qualities = top - fall * np.log(speeds)
    level = top - fall * math.log(8.0) * (0.01 + 0.98 * share)
    found = at_quality(speeds, qualities, level)
    assert at_speedup(speeds, qualities, found) == pytest.approx(level, rel=1e-9)
    assert found == pytest.approx(math.exp((top - level) / fall), rel=1e-9)


@settings(deadline=None)
@given(curves, st.floats(5, 95))
def test_draws_at_once_equal_one_at_a_time(points: list[tuple[float, float]], level: float) -> None:
    speeds = np.unique([round(s, 3) for s, _ in points])
    qualities = np.array([q for _, q in points])[: speeds.size]
    many = at_quality_of_draws(np.stack([speeds, speeds[::-1]]), np.stack([qualities, qualities[::-1]]), level)
    one = at_quality(speeds, qualities, level)
    np.testing.assert_allclose(many, [one, one], rtol=1e-9)


def test_points_of_equal_speed_count_as_their_mean() -> None:
    speeds, qualities = np.array([2.0, 2.0, 4.0]), np.array([40.0, 50.0, 35.0])
    assert at_quality(speeds, qualities, 45.0) == pytest.approx(2.0)
    assert at_quality(speeds, qualities, 46.0) == 0.0
    assert at_quality(speeds, qualities, 40.0) == pytest.approx(math.sqrt(8))


def line(name: str, kind: str, at_one: float, speeds: tuple[float, ...] = SPEEDS) -> Curve:
    """Quality at_one - 10 ln(speed-up), the same luck for everybody: every answer has a closed form."""
    speeds_P = np.array(speeds)
    return Curve(
        name=name,
        kind=kind,
        plain_R=np.full(REQUESTS, 12.0),
        work_PR=np.repeat((12.0 / speeds_P)[:, None], REQUESTS, axis=1),
        quality_PR=(at_one - 10 * np.log(speeds_P))[:, None] + LUCK,
    )


def test_equal_fidelity_is_how_much_faster_than_fewer_steps() -> None:
    lines = [line("ours", "gated", 53), line("fewer", "fewer-steps", 50), line("rival", "interval", 54)]
    levels = levels_of(compare_at(lines, (2.0, 2.5, 9.0)))
    assert [(level["curve"], level["speedup"]) for level in levels] == [("fewer", 2.0), ("fewer", 2.5)]
    assert levels[0]["quality"] == pytest.approx(50 - 10 * math.log(2))
    found = {(e["curve"], round(e["level"], 3)): e for e in compare_at_levels(lines, levels)}
    at = found["ours", round(levels[0]["quality"], 3)]
    assert at["speedup"]["value"] == pytest.approx(2 * math.exp(0.3)) and at["speedup"]["open"] is False
    assert at["speedup"]["low"] < at["speedup"]["value"] < at["speedup"]["high"]
    ahead, behind = at["margins"]["fewer"], at["margins"]["rival"]
    assert ahead["value"] == pytest.approx(math.exp(0.3)) and ahead["verdict"] == "ahead"
    assert behind["value"] == pytest.approx(math.exp(-0.1)) and behind["verdict"] == "behind"
    assert ahead["high"] - ahead["low"] < at["speedup"]["high"] - at["speedup"]["low"]  # the luck is shared
    assert found["fewer", round(levels[0]["quality"], 3)]["speedup"]["value"] == pytest.approx(2.0)


def test_a_level_nobody_has_is_empty_and_one_that_is_never_left_is_open() -> None:
    better, worse = line("ours", "gated", 90), line("fewer", "fewer-steps", 50)
    entries = {(e["curve"], e["level"]): e for e in compare_at_levels([better, worse], [{"quality": 70.0}])}
    assert entries["fewer", 70.0]["speedup"] is None
    own = entries["ours", 70.0]
    assert own["speedup"]["open"] and own["speedup"]["value"] == 4.0 and own["margins"] == {}
    open_one = compare_at_levels([better, worse], [{"quality": 45.0}])[0]
    assert open_one["margins"]["fewer"]["verdict"] == "ahead"
    assert open_one["margins"]["fewer"]["value"] == pytest.approx(4 / math.exp(0.5))
    both = compare_at_levels([better, line("fewer", "fewer-steps", 85)], [{"quality": 45.0}])
    assert both[0]["speedup"]["open"] and both[1]["speedup"]["open"] and both[0]["margins"] == {}
    assert compare_at_levels([], [{"quality": 45.0}]) == [] and levels_of([]) == []


def test_two_equal_curves_are_even() -> None:
    same = compare_at_levels([line("ours", "gated", 50), line("fewer", "fewer-steps", 50)], [{"quality": 43.0}])
    assert same[0]["margins"]["fewer"]["verdict"] == "even" and same[0]["margins"]["fewer"]["value"] == 1.0


def test_shares_of_dominated_points() -> None:
    places = {"a1": (2, 50), "a2": (3, 40), "b1": (2, 45), "b2": (3, 40), "b3": (4, 20), "c1": (2, 50), "c2": (3, 40)}
    points = [Point(name=name, speedup=s, quality=q) for name, (s, q) in places.items()]
    shares = dominated_shares(points, {name: name[0] for name in places})
    assert shares["b"] == {"a": pytest.approx(1 / 3), "c": pytest.approx(1 / 3)}
    assert shares["a"] == {"b": 0.0, "c": 0.0} and shares["c"] == {"a": 0.0, "b": 0.0}  # ties dominate neither way


def answered(name: str, kind: str, curve: str, work: float, psnr: float, faster: float) -> Row:
    """A row as a study would return it: `work` blocks of 12, PSNR to both references, and a time of 1 / `faster`."""

    def generate(requests: list[Request]) -> list[Result]:
        raise AssertionError("nothing runs here")

    samples = [
        {
            "index": i,
            "blocks": work,
            "work": work,
            "metrics": {
                ref: {"psnr": psnr + LUCK[i]} for ref in ("plain", "converged") if name not in (ref, "converged")
            },
            "checks": {},
            "features": {},
            "trace": None,
        }
        for i in range(REQUESTS)
    ]
    pairs = [Pair(plain=Span(wall=1.0, cpu=1.0), contender=Span(wall=1 / faster, cpu=1 / faster))] if faster else []
    contender = Contender(name=name, label=name, kind=kind, curve=curve, steps=5, generate=generate)
    memory = Memory(peak=int(3e8 * (1 + work / 12)), before=int(3e8)) if faster or name == "plain" else None
    return Row(contender=contender, samples=samples, pairs=pairs, memory=memory)


@pytest.fixture
def results(tmp_path, make_study):
    """Two curves that tie in compute; by the clock, ours takes a quarter longer."""
    rows = [
        answered("plain", "plain", "plain", 12, 45, 0),
        answered("converged", "converged", "converged", 40, 0, 0),
        *(answered(f"ours-{s}", "gated", "ours", 12 / s, 50 - 10 * math.log(s), s / 1.25) for s in (2, 3, 4)),
        *(answered(f"fewer-{s}", "fewer-steps", "fewer", 12 / s, 50 - 10 * math.log(s), s) for s in (2, 3, 4)),
        answered("untimed", "fewer-steps", "fewer", 12 / 1.1, 49, 0),
        answered("once-2", "interval", "once", 6, 48, 2),
        answered("once-3", "interval", "once", 4, 44, 0),
    ]
    study = make_study(
        tmp_path, requests=REQUESTS, contenders=[r.contender for r in rows], timing_requests=1, speedups=(2.0, 2.5, 3.5)
    )
    return build_results(study, rows, pipeline={}, command="", environment={})


def test_equal_time_is_read_along_timed_points_only(results) -> None:
    cells = {(c["curve"], c["speedup"]): c for c in results["equal_time"]["plain"]}
    assert {curve for curve, _ in cells} == {"ours", "fewer"}  # "once" has one timed point, and is no curve
    assert cells["ours", 2.5]["quality"]["value"] == pytest.approx(50 - 10 * math.log(2.5 * 1.25))
    assert cells["fewer", 2.5]["quality"]["value"] == pytest.approx(50 - 10 * math.log(2.5))
    assert cells["ours", 2.0]["margins"]["fewer"]["value"] == pytest.approx(-10 * math.log(1.25))
    assert cells["ours", 2.0]["margins"]["fewer"]["verdict"] == "behind"
    assert cells["ours", 3.5]["quality"] is None  # its fastest point takes 1/3.2 of the time
    compute = {(c["curve"], c["speedup"]): c for c in results["cells"]["plain"]}
    assert compute["ours", 2.0]["margins"]["fewer"]["verdict"] == "even"


def test_equal_fidelity_is_told_in_compute_and_in_time(results) -> None:
    found = results["equal_fidelity"]["converged"]
    assert [level["speedup"] for level in found["levels"]] == [2.0, 2.5, 3.5]
    for clock, ratio in (("compute", 1.0), ("time", 1 / 1.25)):
        ours = [e for e in found[clock] if e["curve"] == "ours"]
        assert [e["margins"]["fewer"]["value"] for e in ours] == pytest.approx([ratio] * 3)


def test_nothing_is_called_best_where_an_open_curve_might_be(results) -> None:
    def best(found: dict) -> list[list[str]]:
        rows = equal_fidelity_table(found, "converged")["rows"]
        return [[row["curve"] for row in rows if row["cells"][place]["best"]] for place in range(3)]

    # "once" ends at 3x, above the last level: nobody can say how much further it would have it.
    assert best(results) == [["once"], ["once"], []]
    changed = copy.deepcopy(results)
    for entry in changed["equal_fidelity"]["converged"]["compute"]:
        if entry["curve"] == "ours":
            entry["speedup"] = {"value": 1.01, "low": 1.0, "high": 1.02, "open": True}
    assert best(changed) == [[], [], []]


def test_memory_and_dominance_are_in_the_results(results) -> None:
    by_name = {c["name"]: c for c in results["contenders"]}
    assert by_name["plain"]["memory"]["ratio"] == 1.0
    assert by_name["ours-3"]["memory"]["ratio"] == pytest.approx(1 / 3, rel=1e-6)
    assert by_name["untimed"]["memory"] is None
    shares = results["dominance"]["plain"]
    assert shares["ours"]["fewer"] == 0.0 and shares["fewer"]["ours"] == 0.0
    assert shares["ours"]["once"] == pytest.approx(2 / 3) and set(shares) == {"ours", "fewer", "once"}
