"""Converted transformers block by block through torch.compile: they give what they did, in few graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._dynamo as dynamo
from closeness import assert_same_but_rounding
from dense_models import build, run
from test_blocks_left_out import moved, scheduled
from test_spread import TIMES, spread
from torch import nn

from outpace.accel.experts import BlockGroup, Conversion, Experts, convert

FLUX = "FluxTransformer2DModel"
CONVERTED: dict[str, Callable[[], nn.Module]] = {
    "experts of noise levels, other ones in every layer": lambda: spread(FLUX)[1],
    "blocks left out by noise level": lambda: moved(scheduled(FLUX)[1]),
    "experts of tokens": lambda: convert(build(FLUX), Conversion(experts=Experts(layout="1S4E2A"))),
    "a group of blocks": lambda: convert(
        build(FLUX, num_single_layers=4), Conversion(groups=(BlockGroup(first=2, size=2, active=1),))
    ),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_compiled_blocks_give_what_they_did_and_are_not_compiled_for_every_layer_and_level(name: str) -> None:
    model = CONVERTED[name]()
    wanted = {time: run(model, time=time) for time in TIMES}
    dynamo.reset()
    dynamo.utils.counters.clear()
    # Beyond its limit torch would run the blocks uncompiled without a word.
    with torch.no_grad(), dynamo.config.patch(fail_on_recompile_limit_hit=True):  # pyright: ignore
        model.compile_repeated_blocks(backend="eager")  # pyright: ignore
        for time in (*TIMES, *TIMES):
            assert_same_but_rounding(run(model, time=time), wanted[time])
    assert dynamo.utils.counters["frames"]["ok"] > 0
    dynamo.reset()
