"""A study of toy contenders: known distances, pairing, interruption, failures."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from outpace.errors import ConfigError, MeasurementError
from outpace.evaluation import Contender, Request, Result, build_results, run_study
from outpace.evaluation.intervals import mean_interval
from outpace.evaluation.metrics.psnr import psnr
from outpace.evaluation.timing import Pair, Span, speedup, time_pairs


def summed_up(study):
    rows = run_study(study, progress=False)
    results = build_results(study, rows, pipeline={}, command="", environment={})
    return {k: v for k, v in results.items() if k != "made"}


def answer(value: float, blocks: float = 10.0):
    def generate(requests: list[Request]) -> list[Result]:
        media = [np.full((12, 12, 3), value, dtype=np.float32) for _ in requests]
        return [Result(media=m, latents=m, blocks=blocks) for m in media]

    return generate


def flat(name: str, kind: str, value: float, blocks: float = 10.0, **more) -> Contender:
    return Contender(name=name, label=name, kind=kind, steps=5, generate=answer(value, blocks), **more)


def test_known_distances_and_speedups_come_out(tmp_path, make_study) -> None:
    contenders = [
        flat("plain", "plain", 0.5, 40.0),
        flat("converged", "converged", 0.75, 160.0),
        flat("same", "gated", 0.5, 40.0),
        flat("near", "gated", 0.51, 10.0),
    ]
    found = {c["name"]: c for c in summed_up(make_study(tmp_path, contenders=contenders))["contenders"]}
    assert found["same"]["metrics"]["plain"]["psnr"]["value"] == 100.0
    assert found["same"]["metrics"]["plain"]["psnr"]["capped"] == 12
    assert found["near"]["metrics"]["plain"]["psnr"]["value"] == pytest.approx(40.0, abs=1e-4)
    assert found["near"]["metrics"]["plain"]["latent_l2"]["value"] == pytest.approx(0.02, abs=1e-6)
    assert found["near"]["speedup"]["value"] == 4.0
    assert found["plain"]["metrics"]["converged"]["psnr"]["value"] == pytest.approx(12.0412, abs=1e-3)
    assert found["converged"]["metrics"] == {}


def test_every_contender_answers_the_same_requests_whatever_the_batch(tmp_path, make_study) -> None:
    one = summed_up(make_study(tmp_path / "a", requests=7, batch=7))
    three = summed_up(make_study(tmp_path / "b", requests=7, batch=3))
    for a, b in zip(one["contenders"], three["contenders"], strict=True):
        assert a.get("samples") == b.get("samples")


def test_the_mean_is_of_pictures_and_its_interval_encloses_it(tmp_path, make_study) -> None:
    study = make_study(tmp_path)
    rows = {row.contender.name: row for row in run_study(study, progress=False)}
    results = build_results(study, list(rows.values()), pipeline={}, command="", environment={})
    entry = next(c for c in results["contenders"] if c["name"] == "steps-20")["metrics"]["plain"]["psnr"]
    contender = rows["steps-20"].contender
    plain = rows["plain"].contender
    by_hand = [
        psnr(a.media, b.media)
        for a, b in zip(contender.generate(list(study.requests)), plain.generate(list(study.requests)), strict=True)
    ]
    assert entry["value"] == pytest.approx(np.mean(by_hand))
    assert entry["low"] < entry["value"] < entry["high"]


class Stop(BaseException):
    """Like a kill: nothing may catch it."""


def test_an_interrupted_study_continues_to_the_same_results(tmp_path, make_study) -> None:
    whole = summed_up(make_study(tmp_path / "whole"))
    study = make_study(tmp_path / "broken")
    calls = []

    def counting(contender: Contender, stop_at: int | None) -> Contender:
        def generate(requests: list[Request]) -> list[Result]:
            if stop_at is not None and len(calls) == stop_at:
                raise Stop
            calls.append(contender.name)
            return contender.generate(requests)

        return dataclasses.replace(contender, generate=generate)

    def with_stop(stop_at: int | None):
        return dataclasses.replace(study, contenders=[counting(c, stop_at) for c in study.contenders])

    with pytest.raises(Stop):
        run_study(with_stop(10), progress=False)
    assert len(calls) == 10
    assert summed_up(with_stop(None)) == whole
    healthy = [c for c in study.contenders if c.name != "peer-broken"]
    assert sorted(calls) == sorted([c.name for c in healthy for _ in range(3)] + ["peer-broken"])


def test_a_damaged_or_foreign_record_is_made_again(tmp_path, make_study) -> None:
    first = summed_up(make_study(tmp_path, requests=4))
    (tmp_path / "cells" / "interval-3" / "0000-0003.json").write_text("{ half a rec")
    (tmp_path / "cells" / "plain" / "0001.npz").unlink()
    assert summed_up(make_study(tmp_path, requests=4)) == first
    other = make_study(tmp_path, requests=4)
    moved = [dataclasses.replace(r, seed=r.seed + 1) for r in other.requests]
    assert summed_up(dataclasses.replace(other, requests=moved))["contenders"] != first["contenders"]


def test_what_fails_is_reported_and_what_is_not_finite_has_no_mean(tmp_path, make_study) -> None:
    contenders = [
        flat("plain", "plain", 0.5),
        flat("converged", "converged", 0.6),
        flat("nan", "interval", float("nan")),
        Contender(name="odd", label="odd", kind="peer", steps=5, generate=lambda requests: []),
    ]
    found = {c["name"]: c for c in summed_up(make_study(tmp_path, contenders=contenders))["contenders"]}
    assert found["nan"]["metrics"]["plain"]["psnr"] is None and found["nan"]["not_finite"] == 12
    assert found["nan"]["checks"] == {}
    assert "0 results for 5 requests" in found["odd"]["error"]
    json.dumps(found, allow_nan=False)


def test_a_reference_that_fails_ends_the_study(tmp_path, make_study) -> None:
    broken = [flat("plain", "plain", float("nan")), flat("converged", "converged", 0.6)]
    with pytest.raises(MeasurementError, match="not finite"):
        run_study(make_study(tmp_path, contenders=broken), progress=False)


@pytest.mark.parametrize(
    ("contenders", "message"),
    [
        ([flat("plain", "plain", 0.5)], "reference 'converged' is not among"),
        ([flat("plain", "plain", 0.5), flat("plain", "plain", 0.5)], "given twice: plain"),
    ],
)
def test_a_study_that_could_not_be_compared_is_refused(tmp_path, make_study, contenders, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make_study(tmp_path, contenders=contenders)


def test_a_contender_needs_a_known_kind_and_a_name_for_files() -> None:
    with pytest.raises(KeyError, match="no kind of contender 'gate'; did you mean 'gated'"):
        flat("a", "gate", 0.5)
    with pytest.raises(ConfigError, match="no file name"):
        flat("a/b", "gated", 0.5)


def test_times_are_paired_and_take_turns() -> None:
    order: list[str] = []
    requests = [Request(index=i, prompt=i, seed=i) for i in range(3)]
    pairs = time_pairs(lambda r: order.append("plain"), lambda r: order.append("other"), [[r] for r in requests])
    assert order[2:] == ["plain", "other", "other", "plain", "plain", "other"]
    assert len(pairs) == 3


def test_several_requests_are_timed_in_one_call_and_in_more_where_a_contender_takes_fewer(tmp_path, make_study) -> None:
    calls: list[tuple[str, list[int]]] = []

    def watched(contender: Contender, most: int) -> Contender:
        def run(requests: list[Request]) -> None:
            calls.append((contender.name, [request.index for request in requests]))

        return dataclasses.replace(contender, timed=run, batch=most, shown=True)

    whole = make_study(tmp_path, requests=4, timing_requests=4, timing_batch=2)
    plain, converged, first, *_ = whole.contenders
    plain, first = watched(plain, 8), watched(first, 1)
    run_study(dataclasses.replace(whole, contenders=[plain, converged, first]), progress=False)
    asked = {name: [indices for who, indices in calls if who == name] for name in (plain.name, first.name)}
    assert asked[plain.name][:1] == [[0, 1]] and [2, 3] in asked[plain.name]  # a call to warm up, then one a pair
    assert asked[first.name][:2] == [[0], [1]] and sorted(map(tuple, asked[first.name])) == sorted(
        [(0,)] * 3 + [(1,)] * 3 + [(2,), (3,)]
    )
    with pytest.raises(ConfigError, match="3 timed prompts cannot be asked for in calls of 2"):
        make_study(tmp_path, requests=4, timing_requests=3, timing_batch=2)
    with pytest.raises(ConfigError, match="3 timed prompts cannot be asked for in calls of 2"):
        make_study(tmp_path, requests=3, timing_requests=4, timing_batch=2)  # there are no more


def test_the_ratio_is_the_median_over_pairs() -> None:
    pairs = [Pair(plain=Span(wall=p, cpu=1.0), contender=Span(wall=1.0, cpu=0.5)) for p in (2.0, 2.0, 3.0, 2.5, 40.0)]
    assert speedup(pairs).value == 2.5 and speedup(pairs, "cpu").value == 2.0
    with pytest.raises(MeasurementError, match="no time at all"):
        speedup([Pair(plain=Span(wall=1, cpu=1), contender=Span(wall=0, cpu=0))])


def test_of_each_curve_the_points_near_the_compared_speedups_are_timed_and_weighed(tmp_path, make_study) -> None:
    calls: list[tuple[str, int]] = []

    def watched(contender: Contender) -> Contender:
        def generate(requests: list[Request]) -> list[Result]:
            calls.append((contender.name, requests[0].index))
            return contender.generate(requests)

        return dataclasses.replace(contender, timed=generate)

    whole = make_study(tmp_path, requests=3, timing_requests=2, speedups=(2.0, 3.0))
    study = dataclasses.replace(whole, contenders=[watched(c) for c in whole.contenders])
    rows = run_study(study, progress=False)
    timed = {row.contender.name: len(row.pairs) for row in rows if row.pairs}
    near = ["gated-0.05", "gated-0.1", "interval-2", "interval-3", "steps-17", "steps-20", "steps-25"]
    assert set(near) < set(timed) and set(timed.values()) == {2}
    assert not {"steps-33", "steps-12", "interval-5", "plain"} & set(timed)
    assert {row.contender.name for row in rows if row.memory} == {"plain", *timed}
    # Once to warm up, once for memory, and the plain pipeline beside each contender and request.
    assert sum(name == "plain" for name, _ in calls) == 2 + 2 * len(timed)
    assert all(sum(name == timed_one for name, _ in calls) == 2 + 2 for timed_one in timed)
    calls.clear()
    again = run_study(study, progress=False)
    assert not calls and [row.memory for row in again] == [row.memory for row in rows]


def test_times_that_were_measured_before_are_shown_again(tmp_path, make_study) -> None:
    every = run_study(make_study(tmp_path, requests=3, timing_requests=2, timed="every"), progress=False)
    again = run_study(make_study(tmp_path, requests=3, timing_requests=2), progress=False)
    assert [row.pairs for row in again] == [row.pairs for row in every]
    assert sum(bool(row.pairs) for row in every) > 2


def test_a_mean_of_nothing_or_of_nan_is_refused() -> None:
    with pytest.raises(MeasurementError, match="nothing was measured"):
        mean_interval([])
    with pytest.raises(MeasurementError, match="1 of 2 values"):
        mean_interval([1.0, float("nan")])
