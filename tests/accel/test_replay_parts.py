"""What a replay is made of: copies of schedulers, the steps it goes through, and how far outputs follow."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forecast_parts import FLOW, entry, normal
from torch import Tensor

from outpace.accel.forecast.entries import Entry, Group, by_row, grouped, mixed_weights, newest, weighted
from outpace.accel.forecast.gains import LEAST_MOVE, bounded_gain, ending_gain, forecast_gain
from outpace.accel.forecast.replay import Replay, merge_state, named_call, snapshot
from outpace.accel.prediction import KINDS, Prediction
from outpace.kernels.forecast import lagrange_weights

torch.set_num_threads(1)


def replay_of(**how: Any) -> tuple[Replay, list[str]]:
    told: list[str] = []
    return Replay(SimpleNamespace(warn=told.append), **how), told  # type: ignore[arg-type]


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
    done = [entry(0, 1.0, normal(1, 4)), entry(1, 0.9, normal(1, 4))]
    if before is not None:
        done.append(follows(done, 0.8, before, normal(1, 4, seed=3)))
    done.append(follows(done, 0.7, newest, normal(1, 4, seed=4)))
    measured = torch.tensor(max(newest, 0.0))
    expected = FLOW.carried(measured, 0.7, 0.6) if helped else torch.tensor(FLOW.largest_gain(0.6))
    gain = forecast_gain(FLOW, 0.6, done[::-1], 2)
    torch.testing.assert_close(torch.as_tensor(gain), expected.view(1, 1), rtol=1e-4, atol=1e-5)
    assert abs(float(expected) - FLOW.gain(0.6)) > 0.01
    # theory alone where fewer steps are known than a forecast is made of, and where two of them are one level
    assert forecast_gain(FLOW, 0.6, done[::-1], 3 + (before is not None)) == FLOW.gain(0.6)
    assert forecast_gain(FLOW, 0.6, [done[-1], *done[:0:-1]], 2) == FLOW.gain(0.6)


@pytest.mark.parametrize("gain", [0.1, 0.55, 0.9])
def test_how_far_the_step_that_ends_a_run_follows_is_measured_there(gain: float) -> None:
    done = [entry(0, 1.0, normal(1, 4)), entry(1, 0.9, normal(1, 4))]
    now = follows(done, 0.8, gain, normal(1, 4, seed=3))  # by step as by level: the steps are even
    theory = FLOW.gain(0.8)
    assert LEAST_MOVE * theory > 0.1 and theory < 0.9
    for found, expected in (
        (ending_gain(FLOW, now, done[::-1]), gain),
        (bounded_gain(FLOW, now, done[::-1]), min(max(gain, LEAST_MOVE * theory), theory)),
    ):
        torch.testing.assert_close(torch.as_tensor(found), torch.full((1, 1), expected), rtol=1e-4, atol=1e-5)
    assert ending_gain(FLOW, now, done[:1]) == bounded_gain(FLOW, now, done[:1]) == theory


def test_how_far_a_row_follows_is_its_own() -> None:
    done = [entry(i, u, normal(3, 4, seed=i), seed=i + 9) for i, u in enumerate((0.5, 0.6, 0.7, 0.8))]
    for gain in (lambda d: forecast_gain(FLOW, 0.45, d, 2), lambda d: ending_gain(FLOW, d[0], d[1:3]),
                 lambda d: bounded_gain(FLOW, d[0], d[1:3])):  # fmt: skip
        together = gain(done)
        assert together.shape == (3, 1) and len(set(together.flatten().tolist())) > 1
        for row in range(3):
            alone = gain([one.of(Group([row], one.seen)) for one in done])
            torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-6)


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
    assert named_call(inspect.signature(Steps().step), (1, 2), {"sample": 3, "more": 4}) == {
        "model_output": 1, "timestep": 2, "sample": 3, "more": 4,
    }  # fmt: skip


def test_rows_of_what_a_scheduler_remembers_are_merged() -> None:
    mine, theirs = Steps(Steps()), Steps(Steps())
    for one in (theirs, theirs.solver):
        one.outputs, one.last = [torch.ones(2, 3), None], torch.ones(2, 3)
    merge_state(mine, theirs, Group([1], mine.outputs[0]), 2)
    for one in (mine, mine.solver):
        assert one.last.sum(1).tolist() == [0.0, 3.0] and one.outputs[0].sum(1).tolist() == [0.0, 3.0]
    mine.last = torch.zeros(4, 3)
    merge_state(mine, theirs, Group([1], mine.outputs[0]), 2)
    assert float(mine.last.sum()) == 0.0, "another batch is another thing"


def test_the_newest_steps_that_were_computed() -> None:
    entries = [entry(i, u, normal(2, 2), computed=done) for i, (u, done) in enumerate(
        [(1.0, True), (0.8, True), (0.8, True), (0.7, False), (0.6, True), (0.6, True), (0.5, False)])]  # fmt: skip
    assert newest(entries, 0, 2, 0.4) == (5, 2), "a level counts once"
    assert newest(entries, 0, 2, 0.6) == (2, 0), "and that of the step that ends the run not at all"
    assert (newest(entries, 0, 1, 0.4), newest(entries, 0, 9)) == ((5,), (5, 4, 2, 1, 0))
    entries[5].computed = [True, False]
    assert newest(entries, 1, 2) == (4, 2), "of each row its own"
    assert grouped(range(5), lambda row: row % 2 if row else None) == {1: [1, 3], 0: [2, 4]}


def test_weights_are_numbers_where_rows_agree_and_else_one_for_each_row() -> None:
    values = [normal(3, 2, 2, seed=i) for i in range(2)]
    assert by_row([[0.5, 0.25]] * 3, values[0]) == [0.5, 0.25]
    each = [[2.0, -1.0], [1.0, 0.0], [0.5, 0.25]]
    made = weighted(values, by_row(each, values[0]))
    for row, (a, b) in enumerate(each):
        torch.testing.assert_close(made[row], a * values[0][row] + b * values[1][row])
        torch.testing.assert_close(made[row], weighted([value[row] for value in values], [a, b]))
    half = weighted([value.bfloat16() for value in values], by_row(each, values[0]))
    assert half.dtype == torch.float32


@pytest.mark.parametrize("rows", [[1], [0, 2], [0, 1, 2]])
def test_rows_are_picked_and_put_back(rows: list[int]) -> None:
    x, group = normal(3, 2), Group(rows, normal(3, 2))
    assert torch.equal(group.of(x), x[rows])
    back = group.into(x, group.of(x).double() + 1)
    assert back.dtype == x.dtype and torch.equal(back - x > 0.5, torch.tensor([[i in rows] * 2 for i in range(3)]))
    one = entry(0, 0.5, normal(3, 2))
    one.sample = one.seen + 1
    one.hold(group.of(one.clean) + 2, group)
    at, held = one.pair
    assert torch.equal(at, group.into(one.seen, group.of(one.sample)))
    torch.testing.assert_close(held, group.into(one.clean, group.of(one.clean) + 2))
    some = one.of(group)
    assert [torch.equal(a, b[rows]) for a, b in zip(some.pair, one.pair, strict=True)] == [True, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", ["flow", "preserving", "exploding"])
def test_what_an_output_that_stays_predicts_at_another_level(kind: str, space: str) -> None:
    prediction, seen, clean = Prediction(kind, space), normal(4), normal(4, seed=1)
    expected = prediction.clean(0.4, seen, prediction.output(0.6, seen, clean))
    sample, picture = prediction.kept(0.6, 0.4)
    torch.testing.assert_close(sample * seen + picture * clean, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("corrected", [False, True])
def test_forecasts_are_moved_to_the_latents_that_are_held(corrected: bool) -> None:
    """Three rows: one forecast along a line, one by half of that, one from a step that is not known, which stays."""
    replay, _ = replay_of(theory=lambda row: True)
    clean = normal(3, 4)
    replay.entries = [entry(0, 0.9, clean), entry(1, 0.8, clean, seed=1)]
    used = {0: ([1, 0], [2.0, -1.0]), 1: ([1, 0], [1.5, -0.5]), 2: ([7], [1.0])}
    line = torch.tensor([[2.0, -1.0], [1.5, -0.5], [1.0, 0.0]])
    seen = line[:, :1] * replay.entries[1].seen + line[:, 1:] * replay.entries[0].seen
    at, there = seen, clean
    if corrected:
        replay.entries[1].sample = replay.entries[1].seen + 0.2
        replay.entries[1].hold(clean + 0.1, Group([0, 1, 2], clean))
        at, there = seen + 0.2 * line[:, :1], clean + 0.1 * line[:, :1]
    held, output = at + 0.3, FLOW.output(0.7, seen, clean)
    now = Entry(2, 0.7, [False] * 3, held, FLOW.clean(0.7, held, output), held, {"model_output": output})
    before = now.clean
    made = replay._feed_back(FLOW, now, [0, 1, 2], used)
    expected = torch.cat([(there + FLOW.gain(0.7) * 0.3)[:2], before[2:]])
    torch.testing.assert_close(now.clean, expected)
    torch.testing.assert_close(made, torch.cat([FLOW.output(0.7, held, expected)[:2], output[2:]]))


class Euler:
    """Steps of 0.2, and a memory of the last output."""

    def __init__(self) -> None:
        self.last = torch.full((3, 4), 7.0)

    def step(self, model_output: Tensor, sample: Tensor) -> tuple[Tensor]:
        self.last = model_output
        return (sample - 0.2 * model_output,)


@pytest.mark.parametrize("degrees", [(1.0, 1.0), (2.0, 2.0), (1.0, 1.75), (2.0, 1.25)])
def test_a_run_is_stepped_again_over_what_is_interpolated(degrees: tuple[float, float]) -> None:
    """Rows 0 and 2 are, at once, each with a degree of its own; row 1 is not."""
    rows = dict(zip((0, 2), degrees, strict=True))
    replay, _ = replay_of(degree=rows.__getitem__)
    nodes = [entry(i, u, normal(3, 4, seed=i)) for i, u in enumerate((1.0, 0.9))]
    nodes[1].sample = nodes[1].seen + 0.1
    nodes[1].hold(nodes[1].clean[:1] + 0.05, Group([0], nodes[1].clean))  # row 0 was corrected at the start of the run
    run = [entry(2 + i, u, normal(3, 4, seed=5 + i), computed=False) for i, u in enumerate((0.7, 0.5))]
    for one in run:
        one.call, one.scheduler = {"model_output": normal(3, 4, seed=one.step), "sample": one.sample}, Euler()
    replay.entries, now, scheduler = [*nodes, *run], entry(4, 0.3, normal(3, 4, seed=8)), Euler()
    first, before = run[0].seen, [one.sample.clone() for one in run]
    arrived = replay._replay(scheduler, FLOW, (1, 0), Group([0, 2], first), now)

    for place, (row, degree) in enumerate(rows.items()):
        state, ends = first[row], [now, nodes[1], nodes[0]]
        for one in run:
            weights = mixed_weights([end.u for end in ends], one.u, degree)
            if degree in (1.0, 2.0):
                count = int(degree) + 1
                assert weights[:count] == lagrange_weights([end.u for end in ends[:count]], one.u)
                assert not any(weights[count:])
            at = sum(w * end.pair[0][row] for w, end in zip(weights, ends, strict=True))
            clean = sum(w * end.pair[1][row] for w, end in zip(weights, ends, strict=True))
            output = FLOW.output(one.u, state, clean + FLOW.gain(one.u) * (state - at))
            torch.testing.assert_close(one.sample[row], state)
            torch.testing.assert_close(one.call["model_output"][row], output)
            state = state - 0.2 * output
        torch.testing.assert_close(arrived[place], state)
        torch.testing.assert_close(scheduler.last[row], run[-1].call["model_output"][row])
        assert torch.equal(run[1].scheduler.last[row], run[0].call["model_output"][row]), "as it stood before that step"
    # the other row stays, in the steps and in what the solver remembers
    assert [one.sample[1].tolist() for one in run] == [one[1].tolist() for one in before]
    assert torch.equal(scheduler.last[1], torch.full((4,), 7.0))


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
