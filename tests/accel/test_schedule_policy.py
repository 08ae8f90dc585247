"""What ScheduledTaylor decides, asked of its policy itself: the steps that are computed, orders, and what is said."""

from __future__ import annotations

import math
from typing import Any

import pytest

from outpace.accel import ScheduledTaylor
from outpace.accel.forecast.errors import Best, Measured
from outpace.accel.forecast.history import History
from outpace.accel.methods import scheduled_taylor
from outpace.accel.methods.scheduled_taylor import (
    DENSEST,
    FAR,
    LARGE,
    LAST_SKIPS,
    LOST,
    MOST_LEFT,
    SMALL,
    UNTRIED,
    SchedulePolicy,
    places_of,
)
from outpace.accel.moment import Moment


def moment(step: int, steps: int) -> Moment:
    return Moment(run=0, step=step, branch="0", leader=True, timestep=0.0, u=0.5, du=0.1, num_steps=steps)


def even(steps: int) -> list[float]:
    """Noise levels before each step, and after the last."""
    return [1.0 - i / steps for i in range(steps + 1)]


def begun(total: int, *, experts: int = 1, blocks: int = 1, **settings: Any) -> tuple[SchedulePolicy, list[str]]:
    policy, notes = ScheduledTaylor(**settings).policy(), []
    policy.begin(even(total), experts, notes.append, blocks)
    return policy, notes


def measured(
    step: int, gap: int = 1, error: float = 0.2, *, order: float = 1.0, replay: float | None = None
) -> Measured:
    return Measured(
        step, gap, Best(order, error, (error, error)), None if replay is None else Best(replay, 0.0, (0.0, 0.0))
    )


def computed(policy: SchedulePolicy, steps: int, *, besides: tuple[int, ...] = (), switch: int | None = None,
             off: float | None = None) -> list[int]:  # fmt: skip
    """Steps that it computes, and those that it was told had to be; the second expert takes over at `switch`. Of every
    computed step it is told how far its clean picture is from the size of pictures: `off` of the first."""
    done: list[int] = []
    for step in range(steps):
        denoiser = "late" if switch is not None and step >= switch else "early"
        wanted = policy.forced(moment(step, steps), History(1.0, 2, rated=False)) is not None
        if wanted or step in besides or step == switch:
            policy.decided(moment(step, steps), denoiser, True)
            if off is not None:
                policy.sized(1.0 - off if done else off)
            done.append(step)
        else:
            policy.decided(moment(step, steps), denoiser, False)
    return done


def test_steps_lie_evenly_with_a_shorter_last_run() -> None:
    # 4 of 12: gaps g with 12 = 3 g + 1 + 0.35 (g - 1), g = 3.39
    assert computed(begun(12, speedup=3.0, early=1.0)[0], 12) == [0, 3, 7, 10]
    policy, _ = begun(12, speedup=3.0, early=1.0)
    gap = (12 - 1 + LAST_SKIPS) / (4 - 1 + LAST_SKIPS)
    assert policy._end() == pytest.approx(4 * gap) and policy._place_after(4, 3) == pytest.approx(4 + (4 * gap - 4) / 4)
    policy, _ = begun(12, speedup=3.0, early=2.0)
    assert policy._place_after(0, 3) == pytest.approx(4 * gap / 16), "dense early: end (k / K)^2"
    assert policy._place_after(1, 2) == pytest.approx(4 * gap * (1 / 3 + 2 / 3 * (1 / (4 * gap)) ** 0.5) ** 2)


def test_how_dense_is_asked_of_the_first_clean_picture() -> None:
    for speedup, expected in ((1.2, DENSEST), (3.0, 1.2), (6.0, 1.1)):
        assert begun(12, speedup=speedup)[0].early == pytest.approx(expected), "until it is there"
    for off, expected in (
        (0.0, 1.0), (SMALL, 1.0), (1.1 * SMALL, 1.0), (math.sqrt(SMALL * LARGE), 1 + (DENSEST - 1) / 2),
        (0.9 * math.sqrt(SMALL * LARGE), 1 + (DENSEST - 1) / 2), (LARGE, DENSEST), (99.0, DENSEST),
    ):  # fmt: skip
        policy, _ = begun(28, speedup=4.0)
        places = computed(policy, 28, off=off)
        assert policy.early == pytest.approx(expected), "the first says it for the run"
        assert places == computed(begun(28, speedup=4.0, early=expected)[0], 28) and len(places) == 7
    even_ones, dense = (computed(begun(28, speedup=4.0)[0], 28, off=off) for off in (0.0, 1.0))
    assert (even_ones[1], dense[1]) == (4, 2), "and that decides about the second step"
    asked, _ = begun(28, speedup=4.0, early=1.7)
    assert computed(asked, 28, off=0.0) == computed(begun(28, speedup=4.0, early=1.7)[0], 28)
    levels = tuple(even(12)[place] for place in (0, 2, 5, 9))
    assert computed(begun(12, speedup=3.0, levels=levels)[0], 12, off=0.0) == [0, 2, 5, 9]


def gaps_behind(missed: float, *, budget: int = 25, done: int = 4, **settings: Any) -> tuple[int, int]:
    """The gap that is planned after `done` computed steps of 100, and what a forecast that missed leaves of it."""
    policy, _ = begun(100, speedup=100 / budget, **settings)
    for step in range(0, 5 * done, 5):
        policy.decided(moment(step, 100), "early", True)
    planned = policy.next - policy.newest
    policy.observe(measured(policy.newest, 5, missed))
    return planned, policy.next - policy.newest


def test_the_gap_is_shorter_behind_a_forecast_that_missed_by_much_while_steps_are_left() -> None:
    planned, kept = gaps_behind(FAR)
    assert planned == kept > 2, "up to there nothing changes"
    planned, shorter = gaps_behind(4 * FAR)
    assert shorter == round(planned / 2), "a forecast of order 1 misses by the square of the gap"
    assert gaps_behind(1e6)[1] == 1
    planned, kept = gaps_behind(4 * FAR, early=1.4)
    assert planned == kept, "who says how dense is heeded"
    for left, changes in ((MOST_LEFT - 1, False), (MOST_LEFT, True)):
        planned, now = gaps_behind(4 * FAR, budget=4 + left)
        assert (now < planned) == changes
    later, fresh = (begun(100, speedup=4.0)[0] for _ in range(2))
    later.observe(measured(0, error=4 * FAR))
    for policy in (later, fresh):
        policy.decided(moment(12, 100), "early", True)
    assert later.next == fresh.next, "a miss counts for the gap behind it and for no other"


def test_steps_lie_denser_early_where_the_first_forecast_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def places(*missed: float, **settings: Any) -> list[int]:
        policy, _ = begun(28, speedup=7.0, **settings)  # 4 of 28: too few for a shorter gap
        found: list[int] = []
        while policy.next < 28:
            found.append(policy.next)
            policy.decided(moment(policy.next, 28), "early", True)
            if len(found) > 1:
                policy.observe(measured(found[-1], error=missed[len(found) - 2]))
        return found

    plain = places(0.0, 0.0, 0.0)
    assert places(LOST, 9.0, 9.0) == plain, "only the first forecast tells"
    lost = places(LOST + 0.1, 0.0, 0.0)
    assert lost[:2] == plain[:2] and lost[2] < plain[2] and len(lost) == 4
    assert places(LOST + 0.1, 0.0, 0.0, early=1.2) == places(0.0, 0.0, 0.0, early=1.2)
    monkeypatch.setattr(scheduled_taylor, "HARD", 1.0)
    assert places(LOST + 0.1, 0.0, 0.0) == plain, "never less dense than it was"


def test_everything_is_computed_where_everything_was_asked_for_whoever_comes() -> None:
    assert computed(begun(12, experts=2, speedup=1.0)[0], 12) == list(range(12))


def test_a_run_that_is_begun_anew_part_of_the_way_goes_on_from_there() -> None:
    """Other prompts, or another batch: nothing is known any more, and the next step is the first that is computed."""
    for off, early in ((0.0, 1.0), (1.0, DENSEST)):
        policy, asked = begun(28, speedup=7.0)[0], begun(28, speedup=7.0, early=early)[0]
        for some in (policy, asked):
            some.decided(moment(14, 28), "early", True)
        policy.sized(off)
        assert policy.next == asked.next > 15


def test_orders_and_degrees_are_those_that_proved_best() -> None:
    policy, _ = begun(12, speedup=3.0)
    assert (policy.order, policy.degree, policy.measured, policy.measures) == (0.0, 1.0, False, True)
    policy.observe(Measured(1, 1, Best(0.0, 0.2, (0.2,)), None))
    assert (policy.order, policy.degree) == (UNTRIED, 1.0), "order 1 could not be tried yet"
    policy.observe(measured(3, 2, order=1.25, replay=1.5))
    assert (policy.order, policy.degree) == (1.25, 1.75)
    for highest, order in ((1, 1.0), (2, 1.25)):
        history = History(0.0, highest, rated=False)
        assert policy.forced(moment(3, 12), history) is None and history.order == order
    fixed, _ = begun(12, speedup=3.0, order=2.0, replay=1.5)
    fixed.observe(measured(3, 2, order=1.0, replay=1.0))
    assert (fixed.order, fixed.degree) == (2.0, 1.5) and ScheduledTaylor(speedup=1.0).policy().measures is False
    kept = fixed.history()
    assert (kept.order, kept.max_order, kept.rated) == (2.0, 2, False)
    blind, _ = begun(12, speedup=3.0)
    for step in (0, 3):
        blind.decided(moment(step, 12), "early", True)
        assert blind.order == float(step > 0), "order 1 where nothing can be measured, from the second computed step on"


def test_a_step_for_each_further_expert_is_kept() -> None:
    assert [begun(12, experts=n, speedup=3.0)[0].reserved for n in (1, 2, 3)] == [0, 1, 2]
    assert begun(12, experts=2, speedup=12.0)[0].reserved == 0, "of one step none is left to keep"
    policy, _ = begun(12, experts=2, speedup=3.0, early=1.0)
    assert computed(policy, 12, switch=9) == [0, 4, 8, 9] or policy.done == 4
    assert policy.reserved == 0
    policy, _ = begun(12, experts=2, speedup=3.0, early=1.0)
    late = computed(policy, 12, switch=5)
    assert len(late) == 4 and 5 in late


def test_a_given_schedule_is_kept_to_and_a_step_besides_takes_the_place_of_one() -> None:
    levels = tuple(even(12)[place] for place in (0, 2, 5, 9))
    policy, notes = begun(12, speedup=3.0, levels=levels, steps=12)
    assert computed(policy, 12) == [0, 2, 5, 9] and notes == []
    policy, _ = begun(12, speedup=3.0, levels=levels, steps=12)
    assert computed(policy, 12, besides=(1,)) == [0, 1, 5, 9]
    policy, notes = begun(24, speedup=6.0, levels=levels, steps=12)
    assert policy.places == places_of(levels, even(24)[:-1], 4) == [0, 4, 10, 18]
    assert notes == ["the schedule was calibrated for 12 steps and is mapped to 24 by noise level"]
    assert begun(3, speedup=3.0, levels=levels, steps=12)[1] == [], "nothing is mapped where one step is computed"
    assert begun(12, speedup=3.0, levels=levels)[1] == []


def test_without_noise_levels_steps_are_counted() -> None:
    policy, notes = ScheduledTaylor(speedup=2.5).policy(), []
    policy.begin(None, 1, notes.append)
    assert computed(policy, 13) == [0, 3, 5, 8, 10] and not notes and policy.total is None


def test_the_share_that_whole_steps_miss_is_said() -> None:
    assert begun(12, speedup=3.0)[1] == []
    assert begun(10, speedup=3.0)[1] == [
        "10 steps are computed in 3, which is 3.33x and the nearest to 3x that whole steps allow"
    ]
    assert begun(10, speedup=3.0, exact=True, blocks=3)[1] == [] and begun(50, speedup=2.95)[1] == []
    assert "that steps of 2 blocks allow" in begun(10, speedup=3.0, exact=True, blocks=2)[1][0]


def test_a_partial_step_lies_half_way_in_the_last_run() -> None:
    policy, _ = begun(10, speedup=3.0, exact=True, blocks=6, early=1.0)
    assert (policy.budget, policy.part, policy.depth) == (3, 2, 0), "3 steps and a third of a fourth"
    done = computed(policy, 10)
    assert done == [0, 4, 8] and policy.part_at == 9 and [s for s in range(10) if policy.partial(moment(s, 10))] == [9]
    again, _ = begun(10, speedup=3.0, exact=True, blocks=6, early=1.0)
    depths = []
    for step in done:
        again.decided(moment(step, 10), "early", True)
        depths.append(again.depth)
    assert depths == [2, 2, 2], "kept at the last computed steps, from which it is forecast"
    long, _ = begun(20, speedup=3.0, exact=True, blocks=3)
    assert long.depth == 0 and long.budget > 4
    policy, notes = begun(10, speedup=3.0, exact=True, blocks=6)
    policy.refuse_partial()
    assert (policy.budget, policy.part) == (3, 0) and "whole steps allow" in notes[0]
    policy, notes = begun(12, speedup=3.0)
    policy.refuse_partial()
    assert policy.budget == 4 and notes == []


def test_a_step_is_left_for_the_partial_one() -> None:
    last = ScheduledTaylor(speedup=1.3, exact=True).policy()
    last.begin(even(5), 1, lambda text: None, 12)
    assert last.part and computed(last, 5)[-1] < 4 == last.part_at


def test_what_is_no_schedule_is_refused_and_what_is_one_is_read() -> None:
    assert ScheduledTaylor(levels=0.5).levels == "0.5"  # pyright: ignore[reportArgumentType]
    assert ScheduledTaylor(levels=[1.0, 0.25]).levels == "1/0.25"  # pyright: ignore[reportArgumentType]
    assert ScheduledTaylor(levels="1/0.5/").noise_levels == (1.0, 0.5)
    assert [ScheduledTaylor(speedup=s).correct for s in (1.0, 1.1)] == [False, True]
