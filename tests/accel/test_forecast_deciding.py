"""Which samples of a call are computed and which are forecast."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forecast_parts import call_of, current_of, filled, moment

from outpace.accel.forecast.active import Active, Branch
from outpace.accel.forecast.deciding import doubt
from outpace.accel.forecast.forecaster import Forecaster
from outpace.accel.forecast.history import History
from outpace.accel.methods.gated_taylor import GatedTaylor
from outpace.accel.methods.interval_taylor import IntervalTaylor

torch.set_num_threads(1)


def test_why_nothing_can_be_forecast() -> None:
    history = History(1, 1)
    assert doubt(history, 1.0) == "no history"
    filled(history, {0.0: torch.zeros(1), 1.0: torch.zeros(1)})
    assert doubt(history, 1.0) == "same noise level" and doubt(history, 2.0) == ""
    assert doubt(history, 0.5) == "noise level turned back" and not history.anchors


def test_a_solver_that_adds_noise_calms_every_order() -> None:
    told: list[str] = []
    stub: Any = SimpleNamespace(trace=SimpleNamespace(warn=told.append))
    history = History(2, 3, gate_order=2)
    Forecaster._calm(stub, history)
    assert (history.max_order, history.order, history.gate_order) == (1, 1, 1) and len(told) == 1
    Forecaster._calm(stub, history)
    assert len(told) == 1
    free = History(None, 2, gate_order=0)
    Forecaster._calm(stub, free)
    assert (free.max_order, free.order, free.gate_order) == (1, None, 0)


def test_rows_of_a_call() -> None:
    active = call_of(3, computed=[True, False, True], first={"hidden": torch.zeros(6, 1)})
    assert active.rows_of(1) == [1, 4] and active.rows == [0, 2, 3, 5]
    active.weights = {1: [1.5, -0.5], 4: [1.0]}
    assert active.used() == {1: ([1, 0], [1.5, -0.5]), 4: ([1], [1.0])}
    active.partial.depth[1] = 2
    active.policies = [SimpleNamespace(depth=depth) for depth in (0, 2, 3)]  # type: ignore[misc]
    active.note_endings()
    assert active.partial.ending == {1: [1, 4], 2: [2, 5]}
    cutter, later = active.cutter_at(1), active.cutter_at(2)
    assert cutter is not None and cutter.rows == [0, 1, 2, 3, 4, 5] and active.cutter_at(1) is cutter
    assert later is active.cutter is None


def test_the_worst_stream_decides_and_no_number_is_the_worst() -> None:
    asked: list[float | None] = []

    def accept(_moment: object, _history: object, error: float | None) -> str | None:
        asked.append(error)
        return None if error is not None and error < 0.5 else "gate"

    def probe(errors: dict[str, float]) -> tuple[list[bool], list[str], list[float | None], int]:
        def row(error: float) -> list[Any]:
            return [
                SimpleNamespace(
                    first_error=lambda *_: torch.tensor(error), first_missed=lambda _at, _weights, told: told
                )
            ]

        one = {name: row(error) for name, error in errors.items()}
        active = Active(
            SimpleNamespace(moment=moment(5), denoiser=SimpleNamespace(keeps=lambda _named: False), named={}), 1,  # type: ignore[arg-type]
            branch=Branch((), one),  # type: ignore[arg-type]
            policies=[SimpleNamespace(accept=accept)],  # type: ignore[list-item]
            at=[1.0], computed=[True], reason=[""], error=[None], weights={0: [1.0]},
            apart={name: [None] for name in errors}, first={name: torch.zeros(1, 1) for name in errors},
        )  # fmt: skip
        reads = SimpleNamespace(read=lambda parts: [float(part) for part in parts])
        stub: Any = SimpleNamespace(
            clock=SimpleNamespace(reads=reads, unexpected=False), _tie_samples=lambda _active: None
        )
        Forecaster._probe(stub, active, [0])
        return active.computed, active.reason, active.error, active.probed

    assert probe({"a": 0.1, "b": 0.2}) == ([False], ["forecast"], [pytest.approx(0.2)], 1)
    assert probe({"a": 0.7, "b": 0.2}) == ([True], ["gate"], [pytest.approx(0.7)], 0)
    for errors in ({"a": 0.1, "b": math.nan}, {"a": math.nan, "b": 0.1}, {"a": 0.1, "b": math.inf}):
        assert probe(errors) == ([True], ["not finite"], [None], 0)
    assert asked == [pytest.approx(0.2), pytest.approx(0.7)]


def test_other_inputs_begin_anew_and_clear_what_was_replayed() -> None:
    cleared: list[int] = []
    stub: Any = SimpleNamespace(
        _branches={},
        inputs_changed=lambda: cleared.append(1),
        _fresh_history=lambda _policy: History(1, 1),
    )

    def opened(shape: tuple[int, ...], changed: str = "") -> tuple[str, Active]:
        active = Active(current_of(3, changed=changed), 2, policies=[SimpleNamespace()])  # type: ignore[list-item]
        streams = {"hidden": torch.zeros(shape), "sound": torch.zeros(2, 1, 1)}
        return Forecaster._open_branch(stub, active, streams), active

    reason, active = opened((2, 4, 1))
    assert reason == "first step" and not cleared and len(active.histories) == 2 == len(active.streams)
    active.histories[0].push(0.0, 0, None, torch.zeros(1))
    reason, active = opened((2, 4, 1))
    assert reason == "" and active.histories[0].anchors and not cleared
    reason, active = opened((2, 5, 1))
    assert reason == "inputs changed" and not active.histories[0].anchors and cleared == [1]
    assert opened((2, 6, 1), "prompt_embeds changed")[0] == "prompt_embeds changed" and cleared == [1, 1]


def test_a_branch_that_knows_less_than_the_leader_computes() -> None:
    policy = SimpleNamespace(coordinate="step", probes=True, forced=lambda *_: None)

    def planned(known: int, *, decided: bool, order: int | None, leader: bool = False) -> tuple[bool, str]:
        history = filled(History(1, 2), {float(i): torch.zeros(1) for i in range(known)})
        active = Active(current_of(9, leader=leader), 1, branch=Branch((), {"hidden": [history]}))
        stub: Any = SimpleNamespace(
            makers=[object()], _decided=[decided], _orders=[order], _policies_of=lambda *_: [policy],
            _open_branch=lambda *_: "", _weigh=lambda active, sample, _follows: active.weights.update({sample: [1.0]}),
            _compute_part=lambda *_: None, _tie_samples=lambda _active: None,
        )  # fmt: skip
        Forecaster._plan(stub, active, {"hidden": torch.zeros(1, 1)})
        return active.computed[0], active.reason[0]

    assert planned(2, decided=False, order=1) == (False, "forecast")
    assert planned(1, decided=False, order=1) == (True, "too little history")
    assert planned(1, decided=False, order=0) == (False, "forecast")
    assert planned(3, decided=True, order=None) == (True, "follows the first branch")
    assert planned(0, decided=False, order=0) == (True, "no history")
    assert planned(2, decided=True, order=None, leader=True) == (False, ""), "left for the gate"


def test_when_a_gate_has_to_compute() -> None:
    policy = GatedTaylor(threshold=1.0, warmup=3, cooldown=2, max_skips=4).policy()
    history = History(None, 2)
    history.pushed, history.reach = 3, 9
    assert policy.forced(moment(2), history) == "warm-up" and policy.forced(moment(3), history) is None
    history.pushed = 2
    assert policy.forced(moment(9), history) == "warm-up"
    history.pushed = 5
    assert [policy.forced(moment(step), history) for step in (17, 18)] == [None, "last steps"]
    assert policy.forced(moment(18, steps=None), history) is None
    history.skipped = 4
    assert policy.forced(moment(9), history) == "longest run reached"
    history.skipped, history.reach = 2, 1
    assert policy.forced(moment(9), history) == "one longer than the last"
    history.skipped = 1
    assert policy.forced(moment(9), history) is None
    history.skipped = 30
    paper = GatedTaylor.paper(1.0, warmup=1).policy()
    assert paper.forced(moment(9), history) is None
    assert GatedTaylor(threshold=0.0).policy().forced(moment(9), history) == "threshold 0"


def test_what_a_gate_accepts() -> None:
    at = moment(9, u=0.4)
    weight = 0.1 * (1.2 - 0.4) / 0.7
    history = History(1, 1)
    budget = GatedTaylor(threshold=1.0, gate="budget").policy()
    error = 0.6 / (100 * weight)
    assert budget.accept(at, history, error) is None and history.spent == pytest.approx(0.6)
    assert budget.accept(at, history, error) == "budget spent" and history.spent == pytest.approx(0.6)
    paper = GatedTaylor.paper(0.2).policy()
    assert paper.accept(at, history, 0.19) is None and paper.accept(at, history, 0.2) == "gate"
    late = GatedTaylor(threshold=1.0, late=0.25)
    assert [late.bound(u) for u in (1.0, 0.5, 0.0)] == pytest.approx([1.0, 0.5, 0.25])
    planned = GatedTaylor(threshold=1e9, gate="plan", order=1).policy()
    history = filled(History(1, 1), {7.0: torch.zeros(1), 8.0: torch.zeros(1)})
    assert planned.accept(at, history, None) == "nothing measured"
    history.rates[1] = 0.3
    assert planned.accept(at, history, None) is None and history.expected == pytest.approx(0.3 * 1 * 2)
    by_level = GatedTaylor(threshold=1e9, order=1, coordinate="sigma").policy()
    assert by_level.accept(at, history, None) is None
    assert history.expected == pytest.approx(0.3 * (8 - 0.4) * (7 - 0.4))


def test_intervals_begin_short_and_end_computed() -> None:
    policy = IntervalTaylor(interval=4, first=1, warmup=2, cooldown=3).policy()
    history = History(1, 1)
    history.pushed = 2
    assert policy.forced(moment(1), history) == "warm-up" and policy.forced(moment(2), history) is None
    history.skipped = 1
    assert policy.forced(moment(3), history) == "interval"
    history.reach = 1
    assert policy.forced(moment(3), history) is None
    history.skipped = 3
    assert policy.forced(moment(5), history) == "interval"
    history.skipped = 0
    assert [policy.forced(moment(step), history) for step in (16, 17)] == [None, "last steps"]
    assert IntervalTaylor(interval=1).policy().forced(moment(9), filled(History(1, 1), {})) is not None
