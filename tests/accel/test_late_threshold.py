"""A threshold that changes with the noise level: what it does, and that a constant one is the plain threshold."""

from __future__ import annotations

import pytest
import torch
from decisions import computed_by_sample
from tiny import TinyPipeline

from outpace.accel import GatedTaylor, accelerate
from outpace.accel.methods import Method
from outpace.errors import ConfigError

STEPS = 24
SEEDS = [0, 1]
THRESHOLDS = {"plan": 0.3, "budget": 0.3, "paper": 0.1}
"""Of each gate, one that computes some of the tiny transformer's steps and forecasts others."""


@pytest.fixture
def pipe() -> TinyPipeline:
    return TinyPipeline("FluxTransformer2DModel")


def made(pipe: TinyPipeline, method: GatedTaylor) -> tuple[torch.Tensor, list[list[bool]], list[list[float | None]]]:
    """The result, which steps of each sample were computed, and the errors that the gate saw."""
    with accelerate(pipe, method) as run:
        result = pipe(SEEDS, steps=STEPS)
    return result, computed_by_sample(run.trace), [list(call.error) for call in run.trace.calls]


@pytest.mark.parametrize("gate", THRESHOLDS)
def test_a_constant_schedule_is_the_threshold_bit_for_bit(pipe: TinyPipeline, gate: str) -> None:
    threshold = THRESHOLDS[gate]
    expected, computed, errors = made(pipe, GatedTaylor(threshold=threshold, gate=gate))
    assert 0 < sum(map(sum, computed)) < len(SEEDS) * STEPS, "a test of a gate needs one that decides"
    result = made(pipe, GatedTaylor(threshold=threshold, gate=gate, late=threshold))
    assert torch.equal(result[0], expected) and result[1:] == (computed, errors)


@pytest.mark.parametrize("gate", THRESHOLDS)
def test_it_moves_work_to_where_it_is_stricter(pipe: TinyPipeline, gate: str) -> None:
    def late_share(threshold: float, late: float) -> float:
        computed = made(pipe, GatedTaylor(threshold=threshold, gate=gate, late=late, cooldown=0))[1]
        return sum(sum(sample[STEPS // 2 :]) for sample in computed) / (len(SEEDS) * (STEPS - STEPS // 2))

    high, low = THRESHOLDS[gate], 0.3 * THRESHOLDS[gate]  # each leaves room on the side that is asked of it
    assert late_share(high, high / 1e3) > late_share(high, high)
    assert late_share(low, low * 1e3) < late_share(low, low)


def test_between_its_ends_it_changes_by_one_factor() -> None:
    method = GatedTaylor(threshold=0.1, late=0.4)
    assert [method.bound(level) for level in (1.0, 0.5, 0.0)] == pytest.approx([0.1, 0.2, 0.4])
    assert method.bound(1.3) == 0.1, "a noise level beyond pure noise is pure noise"
    assert GatedTaylor(threshold=0.0, late=5.0).bound(0.0) == 0.0, "threshold 0 computes everything"
    assert GatedTaylor(threshold=0.1, late=0.0).bound(0.5) == 0.0


def test_it_goes_through_plain_data_and_is_told_only_where_it_is_set() -> None:
    method = GatedTaylor(threshold=0.1, late=0.4)
    assert Method.from_dict(method.to_dict()) == method
    assert "late" not in GatedTaylor(threshold=0.1).to_dict()


@pytest.mark.parametrize("late", [-0.1, float("nan"), float("inf"), "0.3", True])
def test_a_late_threshold_that_is_none_is_refused(late: object) -> None:
    with pytest.raises(ConfigError, match="late must be a number >= 0"):
        GatedTaylor(late=late)  # pyright: ignore[reportArgumentType]
