"""The exact is one setting away on trained weights too, and a picture does not depend on its batch mates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from closeness import assert_same_but_rounding

import outpace
from outpace.pipelines.pocket.recipes import POCKETS

THRESHOLDS = {"dit": 0.3, "flux": 0.3, "wan": 2.0}
"""Where each pocket forecasts some of so few steps and computes others."""
STEPS = 14


@pytest.fixture(scope="module", params=list(THRESHOLDS))
def pocket(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    pipe = outpace.load_pocket(request.param)
    pipe.set_progress_bar_config(disable=True)
    return POCKETS[request.param], pipe


def media(pocket: tuple[Any, Any], samples: list[int]) -> np.ndarray:
    recipe, pipe = pocket
    prompts = recipe.prompts(4, "held_out")
    made = pipe(
        [prompts[i] for i in samples],
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(100 + i) for i in samples],
        output_type="np",
        **recipe.call,
    )
    return np.asarray(made.images if hasattr(made, "images") else made.frames)


def test_threshold_0_is_the_plain_pipeline_bit_for_bit(pocket: tuple[Any, Any]) -> None:
    plain = media(pocket, [0, 1])
    with outpace.accelerate(pocket[1], outpace.GatedTaylor(threshold=0.0)) as run:
        accelerated = media(pocket, [0, 1])
    assert run.trace.totals()["forecast"] == 0
    np.testing.assert_array_equal(accelerated, plain)
    np.testing.assert_array_equal(media(pocket, [0, 1]), plain)  # restored


@pytest.mark.parametrize("gate", ["plan", "budget"])
def test_a_sample_of_a_batch_equals_it_alone(pocket: tuple[Any, Any], gate: str) -> None:
    method = outpace.GatedTaylor(threshold=THRESHOLDS[pocket[0].name], gate=gate)
    with outpace.accelerate(pocket[1], method) as run:
        together = media(pocket, [0, 1, 2, 3])
    assert run.trace.totals()["forecast"] > 0
    with outpace.accelerate(pocket[1], method) as alone:
        one = media(pocket, [2])[0]
    decided = [call.computed[2] for call in run.trace.calls]
    assert decided == [call.computed[0] for call in alone.trace.calls]
    assert_same_but_rounding(together[2], one)
