"""Phases and Raptor: training follows a teacher, and bad input ends in one clear error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from outpace.errors import ConfigError
from outpace.models.phases import apart, dynamics, phases, similarity, states
from outpace.models.raptor import Raptor, RaptorBlock, RaptorConfig, follow, take_layer

torch.set_num_threads(1)
SMALL: dict[str, Any] = {"width": 8, "heads": 2, "expansion": 2, "registers": 0, "layer_scale": 0.1}


def test_a_raptor_learns_to_follow() -> None:
    torch.manual_seed(0)
    teacher, model = (Raptor(RaptorConfig(lengths=(2, 1), **SMALL)) for _ in range(2))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        start = torch.randn(64, 5, 8)
        wanted = teacher(start)

    @torch.no_grad()
    def missed() -> float:
        return float((model(start) - wanted).square().mean())

    before = missed()
    follow(model, torch.cat([start[None], wanted]), steps=40, rate=1e-2, batch=16)
    assert missed() < 0.6 * before


def test_states_are_seen_in_blocks_that_return_tuples_and_without_blocks() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return x + 1, 0

    block, x = Pair(), torch.zeros(1, 2, 3)
    with states([block]) as seen:
        block(x)
    assert len(seen) == 2 and torch.equal(seen[1], x + 1)
    with pytest.raises(RuntimeError, match="inside"), states([block]):
        raise RuntimeError("inside")
    block(x)
    assert len(seen) == 2 and not block._forward_hooks and not block._forward_pre_hooks
    with states([]) as nothing:
        block(x)
    assert not nothing


def test_bad_input_ends_in_one_clear_error() -> None:
    square = torch.eye(4)
    for bad in ({"count": 0}, {"count": 5}, {"least": 0.0}):
        with pytest.raises(ConfigError, match="phases are cut from a square similarity"):
            phases(square, **bad)
    with pytest.raises(ConfigError, match="phases are cut"):
        phases(square[:2])
    x = torch.zeros(2, 5, 8)
    with pytest.raises(ConfigError, match="more than 5 tokens"):
        similarity([x, x], registers=4)
    with pytest.raises(ConfigError, match="of one shape"):
        dynamics([x, x[:1]])
    with pytest.raises(ConfigError, match="between at least two layers"):
        dynamics([x])
    with pytest.raises(ConfigError, match="states of the same shapes"):
        apart([x], [x, x])
    with pytest.raises(ConfigError, match="phases of at least one layer"):
        RaptorConfig(lengths=())
    with pytest.raises(ConfigError, match="lengths of RaptorConfig must be at least 1"):
        RaptorConfig(lengths=(3, 0))
    with pytest.raises(ConfigError, match="width over heads"):
        RaptorConfig(width=10, heads=4)
    model = Raptor(RaptorConfig(lengths=(2, 2), **SMALL))
    with pytest.raises(ConfigError, match="follows states"):
        follow(model, torch.zeros(4, 2, 5, 8), steps=1)
    block = model.blocks[0]
    assert isinstance(block, RaptorBlock)
    with pytest.raises(ConfigError, match="not of a DINOv2 layer"):
        take_layer(block, nn.Linear(2, 2))
