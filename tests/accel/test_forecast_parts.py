"""The parts that a forecast is made of, each by itself: what it remembers, decides, measures and puts back."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from toy import ToyPipeline, starts, toy_family

from outpace.accel import accelerate
from outpace.accel.calibration import runs
from outpace.accel.forecast.active import Active, Branch
from outpace.accel.forecast.deciding import doubt
from outpace.accel.forecast.errors import HIGHEST, _best, _between, _forecast, _products, measure
from outpace.accel.forecast.forecaster import Forecaster
from outpace.accel.forecast.history import LARGEST_WEIGHT_SUM, PROBE_TOKENS, History
from outpace.accel.forecast.partial import Partial, comparable, kept, possible
from outpace.accel.forecast.replay import Entry, Replay, merge_state, mixed_weights, named_call, snapshot
from outpace.accel.methods.gated_taylor import GatedTaylor
from outpace.accel.methods.interval_taylor import IntervalTaylor
from outpace.accel.moment import Moment
from outpace.accel.prediction import Prediction
from outpace.errors import ConfigError
from outpace.kernels.forecast import lagrange_weights

__all__ = ["toy_family"]
torch.set_num_threads(1)
FLOW = Prediction("flow", "flow")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moment(step: int, *, u: float = 0.5, steps: int | None = 20) -> Moment:
    return Moment(run=0, step=step, branch="0", leader=True, timestep=0.0, u=u, du=0.1, num_steps=steps)


def filled(history: History, values: dict[float, Tensor], *, firsts: bool = False) -> History:
    """A history of computed steps, pushed in the order given."""
    for step, (at, last) in enumerate(values.items()):
        history.push(at, step, last + 1 if firsts else None, last)
    return history


# What one row remembers


def test_a_computed_step_begins_a_new_run_of_forecasts() -> None:
    history = History(1, 2)
    history.skipped, history.spent, history.reach = 3, 0.7, 1
    history.push(0.0, 0, None, torch.zeros(1))
    assert (history.reach, history.skipped, history.spent, history.pushed) == (3, 0, 0.0, 1)
    history.push(1.0, 1, None, torch.zeros(1))
    assert (history.reach, history.pushed) == (0, 2)


def test_nothing_is_left_of_a_history_that_is_cleared() -> None:
    history = filled(History(None, 2), {0.0: torch.zeros(1), 1.0: torch.ones(1)})
    history.learn(2.0, [0.5])
    history.skipped, history.spent, history.reach, history.expected = 2, 0.5, 3, 0.1
    assert history.rates
    history.clear()
    fresh = History(None, 2)
    assert history == fresh and history.rates == {} and history.expected is None


@pytest.mark.parametrize(("order", "highest", "gate", "rated", "holds"), [
    (None, 2, None, True, 3), (0, 3, None, True, 1), (1, 3, 2, True, 3), (0.25, 2, None, True, 2),
    (0.25, 2, None, False, 3),
])  # fmt: skip
def test_as_many_steps_are_kept_as_a_forecast_may_need(
    order: float | None, highest: int, gate: int | None, rated: bool, holds: int
) -> None:
    history = History(order, highest, gate_order=gate, rated=rated)
    for step in range(6):
        history.push(float(step), step, None, torch.full((2,), float(step)))
    assert [anchor.step for anchor in history.anchors] == [5 - i for i in range(holds)]
    history.make_room(6.0)
    assert len(history.anchors) == holds - 1, "the place of the next is free before it is made"
    history = filled(History(2, 2), {0.0: torch.zeros(1), 1.0: torch.ones(1)})
    history.push(1.0, 2, None, torch.full((1,), 7.0))
    assert [(a.at, float(a.last)) for a in history.anchors] == [(1.0, 7.0), (0.0, 0.0)], "the same level is replaced"


def test_orders_follow_from_the_steps_that_there_are() -> None:
    values = {float(i): torch.zeros(1) for i in range(4)}
    assert History(None, 2).orders() == [] and filled(History(None, 2), {0.0: torch.zeros(1)}).orders() == [0]
    assert filled(History(None, 2), values).orders() == [1, 2] and filled(History(None, 3), values).orders(2) == [1]
    assert filled(History(0.5, 2), values).orders() == [1] and filled(History(3, 3), values).orders(2) == [1]


def test_rates_are_learned_and_predict() -> None:
    history = filled(History(None, 2), {0.0: torch.zeros(1), 1.0: torch.zeros(1), 3.0: torch.zeros(1)})
    history.learn(4.0, [0.4, 0.06])  # of orders 1 and 2
    assert history.rates == {1: pytest.approx(0.4 / (1 * 3)), 2: pytest.approx(0.06 / (1 * 3 * 4))}
    assert history.predicted_error(5.0, 1) == pytest.approx(0.4 / 3 * 2 * 4)
    assert history.predicted_error(5.0, 0) is None
    assert history.best_order(3.5) == 2 and history.best_order(30.0) == 1
    history.learn(4.0, [0.4 * 4, 0.06 * 400])
    assert history.rates == {1: pytest.approx(0.8 / 3), 2: pytest.approx(1.2 / 12)}, "the mean of logarithms"
    assert history.best_order(4.5) == 1
    history.learn(4.0, [])
    assert len(history.rates) == 2
    falling = filled(History(None, 2), {1.0: torch.zeros(1), 0.8: torch.zeros(1), 0.5: torch.zeros(1)})
    falling.learn(0.4, [0.4, 0.06])
    assert falling.rates == {1: pytest.approx(0.4 / (0.1 * 0.4)), 2: pytest.approx(0.06 / (0.1 * 0.4 * 0.6))}
    assert falling.predicted_error(0.3, 1) == pytest.approx(10.0 * 0.2 * 0.5)


def test_weights_are_those_of_the_polynomial_and_never_amplify_too_much() -> None:
    values = {0.0: normal(4), 1.0: normal(4, seed=1), 3.0: normal(4, seed=2)}
    history = filled(History(2, 2), values)
    assert history.weights(4.0) == pytest.approx([2.0, -2.0, 1.0])
    assert history.weights(4.0, 1) == pytest.approx([1.5, -0.5]) and history.weights(4.0, 0) == [1.0]
    between = filled(History(1.25, 2), values).weights(4.0)
    assert between == pytest.approx([1.5 + 0.25 * 0.5, -0.5 - 0.25 * 1.5, 0.25])
    assert sum(map(abs, history.weights(4.0))) <= LARGEST_WEIGHT_SUM < sum(abs(w) for w in (11.0, -20.0, 10.0))
    near = filled(History(1, 1), {0.0: values[0.0], 0.01: values[1.0]})
    assert near.weights(1.0) == [1.0], "two steps next to each other say nothing of one far away"
    assert filled(History(2, 2, exact=False), values).weights(4.0) != pytest.approx([2.0, -2.0, 1.0])


def test_an_error_is_measured_by_leaving_the_step_out() -> None:
    x = {float(at): torch.full((6, 2), 3.0 + 2 * at + at * at) for at in (0, 1, 2)}
    history = filled(History(None, 2), x)
    found = [float(error) for error in history.measured(4.0, torch.full((6, 2), 27.0))]
    line = 11 + 2 * (11 - 6)
    assert found == [pytest.approx((27 - line) / 27), pytest.approx(0.0, abs=1e-6)]
    again = [float(error) for error in history.measured(2.0, torch.full((6, 2), 11.0))]
    assert again == [pytest.approx(abs(6 + 3 - 11) / 11)], "a step at the newest level is measured from those before"
    history.rated = False
    assert history.measured(4.0, torch.full((6, 2), 27.0)) == []
    long = filled(History(None, 1), {0.0: torch.ones(4 * PROBE_TOKENS, 1), 1.0: torch.ones(4 * PROBE_TOKENS, 1)})
    truth = torch.ones(4 * PROBE_TOKENS, 1)
    truth[1::4] = 100.0  # between the tokens that are looked at
    assert float(long.measured(2.0, truth)[0]) == 0.0


def test_the_first_blocks_error_is_of_the_gates_own_order() -> None:
    values = {0.0: torch.zeros(3, 1), 1.0: torch.ones(3, 1)}
    history = filled(History(1, 1), values, firsts=True)
    assert float(history.first_error(2.0, [2.0, -1.0], torch.full((3, 1), 3.0)) or 0.0) == 0.0
    history.gate_order = 0
    assert float(history.first_error(2.0, [2.0, -1.0], torch.full((3, 1), 4.0)) or 0.0) == pytest.approx(0.5)
    history.gate_order, history.anchors[1].first = None, None
    assert history.first_error(2.0, [2.0, -1.0], torch.ones(3, 1)) is None
    assert history.first_error(2.0, [1.0], torch.ones(3, 1)) is not None
    assert history.last([2.0, -1.0]).tolist() == [[2.0]] * 3


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


# Partial steps, and one call


def test_partial_steps_add_what_the_first_blocks_gave_beyond_their_forecast() -> None:
    history = filled(History(1, 1), {0.0: torch.zeros(2, 1), 1.0: torch.ones(2, 1)}, firsts=True)
    partial = Partial(depth={0: 2, 2: 3}, reached={("hidden", 1): torch.full((2, 1), 10.0)})
    assert [partial.samples(i) for i in (1, 2, 3)] == [[0, 2], [2], []]
    assert partial.blocks(3) == [2, 0, 3] and Partial().blocks(3) == []
    added = partial.added("hidden", 1, history, [2.0, -1.0])
    assert added is not None and added.tolist() == [[10.0 - (2 * 2 - 1)]] * 2
    assert partial.added("hidden", 0, history, [1.0]) is None
    assert [len(kept(history, n) or ()) for n in (1, 2, 3)] == [1, 2, 0]
    assert possible([history], 2) and not possible([history, History(1, 1)], 2)
    history.anchors[1].first = None
    assert kept(history, 2) is None and kept(history, 1) is not None
    assert partial.added("hidden", 1, history, [2.0, -1.0]) is None
    assert comparable(None, torch.zeros(2)) and comparable(torch.zeros(2), torch.ones(2))
    assert not comparable(torch.zeros(3), torch.ones(2))


def call_of(samples: int, tie: int = 2, **how: Any) -> Active:
    histories = [filled(History(1, 1), {0.0: torch.zeros(1), 1.0: torch.ones(1)}) for _ in range(samples * tie)]
    return Active(SimpleNamespace(), tie, branch=Branch((), {"hidden": histories}), **how)  # type: ignore[arg-type]


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


def current_of(step: int, *, leader: bool = True, changed: str = "") -> Any:
    denoiser = SimpleNamespace(
        name="transformer", ranks=None, stacks=[SimpleNamespace(also=(), split=None)], keeps=lambda _named: False,
        must_compute=lambda _named: "",
    )  # fmt: skip
    at = Moment(run=0, step=step, branch="0", leader=leader, timestep=0.0, u=0.5, du=0.1, num_steps=20)
    return SimpleNamespace(
        denoiser=denoiser, moment=at, named={}, changed=changed, signature=lambda x: (tuple(x.shape),)
    )


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


def test_what_is_remembered_is_a_copy_and_only_what_is_finite() -> None:
    told: list[str] = []
    stub: Any = SimpleNamespace(
        clock=SimpleNamespace(
            reads=SimpleNamespace(read=lambda parts: torch.cat([one.flatten() for one in parts]).tolist())
        ),
        trace=SimpleNamespace(warn=told.append),
    )

    def remembered(hidden: Tensor) -> list[History]:
        active = call_of(2, 1, computed=[True, False], at=[2.0, 2.0], policies=[SimpleNamespace(depth=0)] * 2)
        active.current = current_of(2)
        active.firsts = {("hidden", 0): hidden[0] + 1}
        Forecaster._remember(stub, active, {"hidden": hidden})
        return active.histories

    hidden = normal(2, 1)
    expected = hidden.clone()
    first, second = remembered(hidden)
    hidden.zero_()  # whoever goes on with it may write there
    assert torch.equal(first.anchors[0].last, expected[0]) and (first.anchors[0].at, first.anchors[0].step) == (2.0, 2)
    assert first.anchors[0].first is not None and len(second.anchors) == 2 and not told
    assert not remembered(torch.full((2, 1), math.nan))[0].anchors and "not finite" in told[0]


def test_what_a_call_ends_with() -> None:
    blocks = [object()] * 5
    denoiser = SimpleNamespace(name="transformer", blocks=blocks)

    def finished(stub: Any, *, leader: bool, computed: list[bool], probed: int = 0, call: Any = None) -> Any:
        stub._active = call_of(
            2, 1, computed=computed, reason=["a", "b"], error=[0.1, None], order=[1, 2], probed=probed,
            weights={0: [1.0], 1: [2.0, -1.0]}, apart={"hidden": [0.5, None]},
        )  # fmt: skip
        stub._active.current = SimpleNamespace(denoiser=denoiser, moment=current_of(3, leader=leader).moment)
        return Forecaster.finish(stub, stub._active.current, SimpleNamespace() if call is None else call)

    told: list[str] = []
    stub: Any = SimpleNamespace(trace=SimpleNamespace(warn=told.append), _decided=None)
    call = finished(stub, leader=True, computed=[True, False], probed=1)
    assert (call.computed, call.reason, call.error, call.order) == ([True, False], ["a", "b"], [0.1, None], [1, 2])
    assert (call.streams, call.partial, call.blocks) == ({"hidden": [0.5, None]}, [], 6.0)
    assert (stub._decided, stub._tie, stub._orders, stub._depths) == ([True, False], 1, [1, 2], {})
    assert stub._used == {1: ([1, 0], [2.0, -1.0])} and stub._active is None
    finished(stub, leader=False, computed=[False, True])
    assert stub._decided == [False, False], "a step counts as computed where every branch was"
    assert stub._used == {1: ([1, 0], [2.0, -1.0])}
    assert finished(stub, leader=True, computed=[]) is None and "first block" in told[0]
    assert Forecaster.finish(SimpleNamespace(_active=None), None, "as it was") == "as it was"  # type: ignore[arg-type]


def forecaster_at_a_step(*, corrects: list[bool], decided: list[bool] | None, noisy: bool = False, **clock: Any) -> Any:
    """In the place of a forecaster whose solver is about to step."""
    scheduler, seen = object(), []
    replay = SimpleNamespace(
        correct=lambda *told: (seen.append(told), ((2.0,), {"more": 3.0}))[1],
        remember_result=lambda result: seen.append(result),
    )
    history = History(2, 2)
    stub: Any = SimpleNamespace(
        clock=SimpleNamespace(levels=[0.9, 0.8, 0.7], place=1, step=4, noisy=noisy, scheduler=scheduler, **clock),
        replay=replay, shared=SimpleNamespace(solver=None), trace=SimpleNamespace(parts={"correction": 0.0}),
        _corrects=corrects, _decided=decided, _tie=2, _used={1: ([0], [1.0])}, _calm=lambda one: seen.append(one),
        _branches={"0": Branch((), {"hidden": [history]})},
    )  # fmt: skip
    stub._is_corrected = lambda sample: Forecaster._is_corrected(stub, sample)
    return stub, seen, scheduler, history


def test_a_step_of_the_solver_is_corrected_where_forecasts_were_made() -> None:
    def step(a: float, more: float = 0.0) -> tuple[float]:
        return (a + more,)

    stub, seen, scheduler, _ = forecaster_at_a_step(corrects=[True, False, True], decided=[False, False, True])
    assert Forecaster.around_step(stub, step, 1.0) == (5.0,)
    # a sample that is not to be corrected is like one that was computed
    assert seen == [(scheduler, step, 4, 0.8, [False, True, True], 2, {1: ([0], [1.0])}, (1.0,), {}, False), (5.0,)]
    assert stub.trace.parts["correction"] > 0 and stub._decided is None
    for how in ({"corrects": [False], "decided": [False]}, {"corrects": [True], "decided": None}):
        stub, seen, *_ = forecaster_at_a_step(**how)
        assert Forecaster.around_step(stub, step, 1.0, more=1.0) == (2.0,) and not seen
    for own, follows in ((True, True), (True, False), (False, True)):
        stub, seen, scheduler, _ = forecaster_at_a_step(corrects=[True], decided=[False])
        stub.shared.solver = SimpleNamespace(own=scheduler if own else None, follows=follows)
        Forecaster.around_step(stub, step, 1.0)
        assert seen[0][0] is (stub.shared.solver if own and follows else scheduler)
    stub, seen, _, history = forecaster_at_a_step(corrects=[True], decided=[False], noisy=True)
    Forecaster.around_step(stub, step, 1.0)
    assert seen[0][-1] is True and seen[2:] == [history], "what solvers that add noise make of orders"


def test_what_is_forgotten_of_a_run_and_of_a_transformer() -> None:
    cleared: list[int] = []
    stub: Any = object.__new__(Forecaster)
    vars(stub).update(
        _branches={("transformer", "0"): 1, ("transformer", "1"): 2, ("transformer_2", "0"): 3}, _ties={1: 2},
        _policies=[object()], _decided=[True], replay=SimpleNamespace(clear=lambda: cleared.append(1)), _experts=set(),
    )  # fmt: skip
    Forecaster.leave(stub, "transformer")
    assert stub._branches == {("transformer_2", "0"): 3} and stub._ties == {1: 2}
    Forecaster.release(stub)
    assert (stub._branches, stub._ties, stub._policies, stub._decided, cleared) == ({}, {}, [], None, [1])
    for name in ("transformer", "transformer_2", "controlnet"):
        Forecaster.attach(stub, SimpleNamespace(name=name))  # type: ignore[arg-type]
    assert stub._experts == {"transformer", "transformer_2"}


# Decisions


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


# What a forecast would have missed


def test_the_best_mixture_lies_on_the_way_between_two_orders() -> None:
    truth, low, high = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]), torch.tensor([3.0, 5.0])
    best = _best(_products(truth, [low, high]).tolist(), 2, 0)
    assert best.order == pytest.approx(4 / 5) and best.error == pytest.approx(0.0, abs=1e-6)
    assert best.errors == (pytest.approx(4 / 5), pytest.approx(1 / 5))
    beyond = _best(_products(truth, [torch.tensor([3.0, 5.0]), torch.tensor([3.0, 6.0])]).tolist(), 2, 1)
    assert (beyond.order, beyond.error) == (1.0, pytest.approx(1 / 5)), "never outside of the two"
    short = _best(_products(truth, [low, torch.tensor([3.0, 3.0])]).tolist(), 2, 1)
    assert (short.order, short.error) == (2.0, pytest.approx(1 / 5))
    three = _best(_products(truth, [low, torch.tensor([3.0, 2.0]), high]).tolist(), 3, 0)
    assert three.order == pytest.approx(1 + 2 / 3) and three.error == pytest.approx(0.0, abs=1e-6)


def entry(step: int, u: float, clean: Tensor, *, computed: bool = True, seed: int = 99) -> Entry:
    seen = (1 - u) * clean + u * normal(*clean.shape, seed=seed)
    return Entry(step, u, [computed] * len(clean), seen, clean, seen, {})


def test_what_is_measured_at_a_computed_step() -> None:
    clean = normal(2, 3, 2)
    known = [entry(step, 1 - step / 10, clean) for step in (0, 2, 4)]
    skipped = [entry(3, 0.7, clean + 9, computed=False), entry(5, 0.5, clean + 9, computed=False)]
    now = entry(6, 0.4, clean)
    found = measure(FLOW, [known[0], known[1], skipped[0], known[2], skipped[1]], now, [1])
    assert set(found) == {1} and (found[1].step, found[1].gap) == (6, 2)
    assert len(found[1].forecast.errors) == HIGHEST + 1 and found[1].replay is not None
    # one noise, one picture: outputs do not change, latents lie on a line
    assert len(found[1].replay.errors) == HIGHEST and found[1].replay.error == pytest.approx(0.0, abs=1e-5)
    assert found[1].forecast.errors[1:] == (pytest.approx(0.0, abs=1e-5), pytest.approx(0.0, abs=1e-5))
    twice = [*known[:2], entry(4, 0.4, clean + 9)]  # a second stage at this level is no step before
    assert measure(FLOW, twice, now, [0])[0].gap == 4
    assert measure(FLOW, [], now, [0]) == {} and measure(FLOW, known[:1], now, [0])[0].replay is None


@pytest.mark.parametrize("corrected", [False, True])
def test_a_forecast_and_an_interpolation_are_moved_to_the_latents_held(corrected: bool) -> None:
    """Both belong to the latents that their weights give; those of a step that was corrected count, not those seen."""
    clean, off = normal(1, 4), normal(1, 4, seed=5)
    nodes = [entry(step, 1 - step / 10, clean) for step in (0, 2, 4)]
    line = 0.4 * clean + 0.6 * normal(1, 4, seed=99)  # one noise: latents lie on a line, and forecasts give the picture
    by = torch.zeros(1, 4)
    if corrected:
        nodes[2].sample, by = nodes[2].seen + 0.25, torch.full((1, 4), 0.25)
        nodes[2].hold(clean + 0.125, [0])
    now = Entry(4, 0.6, [True], line + off, clean, line + off, {})
    weight = {2: -1.0, 4: 2.0}  # of a line from steps 2 and 4 at step 6
    later = Entry(6, 0.4, [True], now.seen, clean, 0.6 * clean + 0.4 * normal(1, 4, seed=99) + off, {})
    expected = clean + weight[4] * by / 2 + FLOW.gain(0.4) * (off - weight[4] * by)
    torch.testing.assert_close(_forecast(FLOW, [nodes[2], nodes[1]], 0, later), expected[0])
    between = clean + FLOW.gain(0.6) * off
    torch.testing.assert_close(_between(FLOW, [nodes[1], nodes[0]], 0, now), between[0])
    weights = [0.5, 0.5]
    assert lagrange_weights([0.8, 0.4], 0.6) == pytest.approx(weights)
    outer = [nodes[1], entry(6, 0.4, clean)]
    if corrected:
        outer[1].sample = outer[1].seen + 0.25
        outer[1].hold(clean + 0.125, [0])
    torch.testing.assert_close(_between(FLOW, outer, 0, now)[None], clean + by / 4 + FLOW.gain(0.6) * (off - by / 2))


# What is put back


def follows(done: list[Entry], u: float, gain: float, away: Tensor) -> Entry:
    """A computed step off by `away` from where a line of levels through the two before would lie, whose clean picture
    follows by `gain` from what the line of their outputs gives."""
    newer, older = done[-1], done[-2]
    share = (u - older.u) / (newer.u - older.u)
    seen = share * newer.seen + (1 - share) * older.seen
    outputs = [FLOW.output(one.u, one.seen, one.clean) for one in (newer, older)]
    there = FLOW.clean(u, seen, share * outputs[0] + (1 - share) * outputs[1])
    return Entry(len(done), u, [True], seen + away, there + gain * away, seen + away, {})


@pytest.mark.parametrize(("before", "newest", "helped"), [
    (0.4, 0.45, True), (0.0, 0.6, False), (None, 0.45, True), (None, 0.98, False), (0.4, -0.5, True),
])  # fmt: skip
def test_how_far_forecasts_follow_is_measured_where_that_helped(
    before: float | None, newest: float, helped: bool
) -> None:
    replay, _ = replay_of()
    done = [entry(0, 1.0, normal(1, 4)), entry(1, 0.9, normal(1, 4))]
    if before is not None:
        done.append(follows(done, 0.8, before, normal(1, 4, seed=3)))
    done.append(follows(done, 0.7, newest, normal(1, 4, seed=4)))
    skipped = entry(9, 0.65, normal(1, 4, seed=8), computed=False)
    replay.entries = [*done, skipped]
    measured = torch.tensor(max(newest, 0.0))
    torch.testing.assert_close(replay._measured(FLOW, done[::-1], 0, 2), measured, rtol=1e-4, atol=1e-5)
    expected = FLOW.carried(measured, 0.7, 0.6) if helped else torch.tensor(FLOW.largest_gain(0.6))
    gain = replay._gain(FLOW, 0.6, 0, 2)
    torch.testing.assert_close(torch.as_tensor(gain), expected, rtol=1e-4, atol=1e-5)
    assert abs(float(expected) - FLOW.gain(0.6)) > 0.01
    # theory alone: where rows go by it, and where fewer steps are known than a forecast is made of
    assert replay._gain(FLOW, 0.6, 0, 3 + (before is not None)) == FLOW.gain(0.6)
    replay.theory = lambda row: True
    assert replay._gain(FLOW, 0.6, 0, 2) == FLOW.gain(0.6)


def test_weights_between_two_degrees_are_mixed() -> None:
    nodes = [0.2, 0.6, 1.0]
    line, curve = mixed_weights(nodes, 0.4, 1.0), mixed_weights(nodes, 0.4, 2.0)
    assert line == pytest.approx([0.5, 0.5, 0.0]) and curve == pytest.approx([0.375, 0.75, -0.125])
    assert mixed_weights(nodes, 0.4, 1.25) == pytest.approx(
        [0.75 * a + 0.25 * b for a, b in zip(line, curve, strict=True)]
    )
    assert mixed_weights(nodes[:2], 0.4, 2.0) == pytest.approx([0.5, 0.5])


class Steps:
    """A scheduler with memories of every kind."""

    def __init__(self, solver: Any = None) -> None:
        self.outputs: list[Any] = [torch.zeros(2, 3), None]
        self.last, self.count = torch.zeros(2, 3), 0
        if solver is not None:
            self.solver = solver

    def step(self, model_output: Tensor, timestep: float, sample: Tensor, **kwargs: Any) -> None:
        self.last += model_output  # in place
        self.outputs.append(model_output)
        self.count += 1


def test_a_copy_of_a_scheduler_steps_without_moving_the_original() -> None:
    scheduler = Steps(Steps())
    scheduler.__dict__["step"] = None  # put over the class's by whoever watches
    twin = snapshot(scheduler)
    twin.step(torch.ones(2, 3), 1.0, torch.zeros(2, 3))
    twin.solver.step(torch.ones(2, 3), 1.0, torch.zeros(2, 3))
    for mine, theirs in ((scheduler, twin), (scheduler.solver, twin.solver)):
        assert (mine.count, len(mine.outputs), float(mine.last.sum())) == (0, 2, 0.0)
        assert (theirs.count, len(theirs.outputs), float(theirs.last.sum())) == (1, 3, 6.0)
    assert named_call(Steps().step, (1, 2), {"sample": 3, "more": 4}) == {
        "model_output": 1, "timestep": 2, "sample": 3, "more": 4,
    }  # fmt: skip


def test_rows_of_what_a_scheduler_remembers_are_merged() -> None:
    mine, theirs = Steps(Steps()), Steps(Steps())
    for one in (theirs, theirs.solver):
        one.outputs, one.last = [torch.ones(2, 3), None], torch.ones(2, 3)
    merge_state(mine, theirs, [1], 2)
    for one in (mine, mine.solver):
        assert one.last.sum(1).tolist() == [0.0, 3.0] and one.outputs[0].sum(1).tolist() == [0.0, 3.0]
    mine.last = torch.zeros(4, 3)
    merge_state(mine, theirs, [1], 2)
    assert float(mine.last.sum()) == 0.0, "another batch is another thing"


def replay_of(**how: Any) -> tuple[Replay, list[str]]:
    told: list[str] = []
    return Replay(SimpleNamespace(warn=told.append), **how), told  # type: ignore[arg-type]


def test_the_steps_that_a_replay_goes_through() -> None:
    replay, _ = replay_of(degree=lambda row: 2.0)
    clean = normal(1, 2)
    replay.entries = [entry(i, u, clean, computed=done) for i, (u, done) in enumerate(
        [(1.0, True), (0.8, True), (0.8, True), (0.7, False), (0.6, True), (0.6, True), (0.5, False)])]  # fmt: skip
    assert replay._nodes(0, 0.4) == (5, 2), "a level counts once"
    assert replay._nodes(0, 0.6) == (2, 0), "and that of the step that ends the run not at all"
    replay.degree = lambda row: 1.0
    assert replay._nodes(0, 0.4) == (5,)


def test_forecasts_are_moved_to_the_latents_that_are_held() -> None:
    replay, _ = replay_of(theory=lambda row: True)
    clean = normal(1, 4)
    replay.entries = [entry(0, 0.9, clean), entry(1, 0.8, clean, seed=1)]
    used = {0: ([1, 0], [2.0, -1.0])}
    belongs = 2 * replay.entries[1].seen - replay.entries[0].seen
    held = belongs + 0.3
    output = FLOW.output(0.7, belongs, clean)
    now = Entry(2, 0.7, [False], held, FLOW.clean(0.7, held, output), held, {})
    moved = replay._feed_back(FLOW, now, [0], used)
    torch.testing.assert_close(moved, clean + FLOW.gain(0.7) * 0.3)
    now = Entry(2, 0.7, [False], held, FLOW.clean(0.7, held, output), held, {})
    torch.testing.assert_close(replay._feed_back(FLOW, now, [0], {0: ([7], [1.0])}), now.clean)


class Euler:
    """Steps of 0.2, and a memory of the last output."""

    def __init__(self) -> None:
        self.last = torch.full((2, 4), 7.0)

    def step(self, model_output: Tensor, sample: Tensor) -> tuple[Tensor]:
        self.last = model_output
        return (sample - 0.2 * model_output,)


@pytest.mark.parametrize("degree", [1.0, 2.0])
def test_a_run_is_stepped_again_over_what_is_interpolated(degree: float) -> None:
    replay, _ = replay_of()
    nodes = [entry(i, u, normal(2, 4, seed=i)) for i, u in enumerate((1.0, 0.9))]
    nodes[1].sample = nodes[1].seen + 0.1
    nodes[1].hold(nodes[1].clean + 0.05, [0])  # row 0 was corrected at the start of the run
    run = [entry(2 + i, u, normal(2, 4, seed=5 + i), computed=False) for i, u in enumerate((0.7, 0.5))]
    for one in run:
        one.call, one.scheduler = {"model_output": normal(2, 4, seed=one.step), "sample": one.sample}, Euler()
    replay.entries, now, scheduler = [*nodes, *run], entry(4, 0.3, normal(2, 4, seed=8)), Euler()
    before = [one.sample.clone() for one in run]
    arrived = replay._replay(scheduler, FLOW, (1, 0)[: int(degree)], degree, [0], now)

    state, ends = run[0].seen[0], [now, nodes[1], nodes[0]][: int(degree) + 1]
    for one in run:
        weights = lagrange_weights([end.u for end in ends], one.u)
        at = sum(w * end.pair[0][0] for w, end in zip(weights, ends, strict=True))
        clean = sum(w * end.pair[1][0] for w, end in zip(weights, ends, strict=True))
        output = FLOW.output(one.u, state, clean + FLOW.gain(one.u) * (state - at))
        torch.testing.assert_close(one.sample[0], state)
        torch.testing.assert_close(one.call["model_output"][0], output)
        state = state - 0.2 * output
    torch.testing.assert_close(arrived[0], state)
    torch.testing.assert_close(scheduler.last[0], run[-1].call["model_output"][0])
    # the other row stays, in the steps and in what the solver remembers
    assert [one.sample[1].tolist() for one in run] == [one[1].tolist() for one in before]
    assert torch.equal(scheduler.last[1], torch.full((4,), 7.0))
    assert torch.equal(run[1].scheduler.last[0], run[0].call["model_output"][0]), "as it stood before that step"


def test_why_latents_are_not_corrected() -> None:
    replay, _ = replay_of()
    sample, output = normal(2, 3), normal(2, 3, seed=1)

    def why(noisy: bool = False, tie: int = 1, prediction: Prediction | None = FLOW, **call: Any) -> str:
        given = {"model_output": output, "sample": sample} | call
        return replay._unfit(Steps(), prediction, given, [True, True], tie, noisy)

    assert why() == ""
    assert "does not take" in why(sample=None) and "not known" in why(prediction=None) and "noise" in why(noisy=True)
    assert "another batch" in why(model_output=normal(3, 3)) and "another batch" in why(
        sample=normal(4, 3), model_output=normal(4, 3)
    )
    assert why(tie=2, sample=normal(4, 3), model_output=normal(4, 3)) == ""
    replay.entries = [entry(0, 0.9, normal(2, 3))]
    assert "changes the latents" in why()
    replay.entries[0].result = sample.clone()
    assert why() == ""
    replay.entries[0].result = sample + 1e-3
    assert "changes the latents" in why()
    replay.entries[0].result = sample
    assert why() == ""


# What a calibration measures


def test_psnr_and_the_largest_difference() -> None:
    one, other, peak = torch.zeros(2, 4), torch.full((2, 4), 0.1), torch.tensor([1.0, 2.0])
    assert runs.psnr(one, other, peak) == [pytest.approx(20.0), pytest.approx(20 + 20 * math.log10(2))]
    assert runs.psnr(one, torch.full((2, 4), math.nan), peak) == [-math.inf] * 2
    assert runs.psnr(one, one, peak) == [pytest.approx(120.0), pytest.approx(120 + 20 * math.log10(2))]
    latents = torch.tensor([[[-1.0, 3.0]], [[2.0, 2.5]]])

    class Pipe:
        scheduler = SimpleNamespace(step=lambda: (latents,))

    pipe = Pipe()
    made, reach = runs.made(pipe, lambda: SimpleNamespace(images=[pipe.scheduler.step()[0]]))
    assert made.shape == (2, 2) and reach.tolist() == [4.0, 0.5]
    pictures, reach = runs.made(pipe, lambda: SimpleNamespace(images=torch.full((2, 1, 2, 2), 0.5)))
    assert pictures.shape == (2, 4) and reach.tolist() == [1.0, 1.0]


def test_every_prompt_has_its_noise_whatever_it_is_run_with() -> None:
    class Pipe:
        def __call__(self, prompt: list[str], output_type: str = "pil", generator: Any = None) -> Any:
            return prompt, output_type, [one.initial_seed() for one in generator]

    run = runs.caller(Pipe(), ["a", "b", "c"], {}, 7)
    assert run([0, 2]) == (["a", "c"], "np", [7, 9]) and run([2]) == (["c"], "np", [9])
    with pytest.raises(ConfigError, match="a list of prompts"):
        runs.caller(Pipe(), "a", {}, 7)


class Second(nn.Module):
    """Passes a copy on, and may write over what it was given, as a CUDA graph does."""

    def __init__(self, *, writes: bool) -> None:
        super().__init__()
        self.writes = writes

    def forward(self, hidden_states: Tensor, alpha: float, sigma: float, kind: str) -> Tensor:
        made = hidden_states.clone()
        if self.writes:
            hidden_states.zero_()
        return made


@pytest.mark.usefixtures("toy_family")
def test_later_blocks_may_write_over_what_the_first_gave() -> None:
    def run(*, writes: bool) -> tuple[Tensor, list[Any]]:
        pipe = ToyPipeline(FlowMatchEulerDiscreteScheduler())
        pipe.transformer.blocks[0], pipe.transformer.blocks[1] = Second(writes=False), Second(writes=writes)
        with accelerate(pipe, GatedTaylor(threshold=20.0, gate="budget")) as handle:
            made = pipe(starts(1))
        return made, [(call.computed, call.reason, call.error) for call in handle.trace.calls]

    (made, calls), (again, others) = run(writes=False), run(writes=True)
    assert any(reason == ["forecast"] for _, reason, _ in calls)
    torch.testing.assert_close(again, made)
    assert [call[:2] for call in others] == [call[:2] for call in calls]
    errors = [call[2][0] for call in calls]
    assert [call[2][0] for call in others] == [None if one is None else pytest.approx(one) for one in errors]


@pytest.mark.usefixtures("toy_family")
def test_a_run_tells_how_long_its_parts_took() -> None:
    pipe = ToyPipeline(FlowMatchEulerDiscreteScheduler())
    with accelerate(pipe, GatedTaylor(threshold=20.0, gate="budget")) as handle:
        pipe(starts(1))
    parts, whole = dict(handle.trace.parts), sum(call.seconds for call in handle.trace.calls)
    assert parts.pop("correction") > 0, "of the solver, between two calls"
    assert set(parts) == {"first block", "other blocks", "gate and forecast", "embedding and head"}
    assert min(parts.values()) > 0 and sum(parts.values()) == pytest.approx(whole)
