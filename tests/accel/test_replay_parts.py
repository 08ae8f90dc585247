"""What a replay is made of: copies of schedulers, the steps it goes through, and how far outputs follow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forecast_parts import FLOW, entry, normal
from torch import Tensor

from outpace.accel.forecast.replay import Entry, Replay, merge_state, mixed_weights, named_call, snapshot
from outpace.accel.prediction import Prediction
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
