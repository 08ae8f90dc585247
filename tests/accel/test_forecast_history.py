"""What one row of a batch remembers of its computed steps, and what a forecast from them would miss."""

from __future__ import annotations

import pytest
import torch
from forecast_parts import filled, normal

from outpace.accel.forecast.history import LARGEST_WEIGHT_SUM, PROBE_TOKENS, History
from outpace.accel.forecast.partial import Partial, comparable, kept, possible

torch.set_num_threads(1)


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
