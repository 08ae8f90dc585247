"""What a forecaster keeps of a call, gives back and forgets."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from forecast_parts import call_of, current_of, normal
from torch import Tensor, nn
from toy import ToyPipeline, starts, toy_family

from outpace.accel import accelerate
from outpace.accel.forecast.active import Branch
from outpace.accel.forecast.forecaster import Forecaster
from outpace.accel.forecast.history import History
from outpace.accel.methods.gated_taylor import GatedTaylor

__all__ = ["toy_family"]
torch.set_num_threads(1)


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
    made: Any = {("x_embedder", 0): None}
    branches: list[Branch] = []

    def finished(stub: Any, *, leader: bool, computed: list[bool], probed: int = 0, call: Any = None) -> Any:
        stub._active = call_of(
            2, 1, computed=computed, reason=["a", "b"], error=[0.1, None], order=[1, 2], probed=probed,
            weights={0: [1.0], 1: [2.0, -1.0]}, apart={"hidden": [0.5, None]}, reached=bool(computed), given=(1,),
        )  # fmt: skip
        stub._active.current = SimpleNamespace(
            denoiser=denoiser, moment=current_of(3, leader=leader).moment, idle=False, made=made
        )
        branches.append(stub._active.branch)
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
    assert all(branch.given == (1,) and branch.made is made for branch in branches), "by which the next is foreseen"
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
