"""GCAB: timm's parts with the same weights, and bad input."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from outpace.errors import ConfigError
from outpace.models.gcab import Gcab, GcabConfig, PositionalAttention, learn_task
from outpace.models.layers.class_attention import GatedClassBlock

torch.set_num_threads(1)
SMALL: dict[str, Any] = {"width": 8, "heads": 4, "blocks": 1, "picture": 4, "patch": 2, "channels": 1}


def test_bad_input_ends_in_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="width over heads"):
        GcabConfig(width=10, heads=4)
    with pytest.raises(ConfigError, match="pixels of a side over patches"):
        GcabConfig(picture=30)
    with pytest.raises(ConfigError, match="at most as many tasks as gates"):
        GcabConfig(classes=(2, 2), tasks=1)
    with pytest.raises(ConfigError, match="classes of GcabConfig must be at least 1"):
        GcabConfig(classes=(2, 0))
    with pytest.raises(ConfigError, match="the largest scale is at least 1"):
        GcabConfig(largest_scale=0.5)
    model = Gcab(GcabConfig(tasks=1, **SMALL))
    with pytest.raises(ConfigError, match="no task yet"):
        model(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ConfigError, match="at least one class"):
        learn_task(model, 0, [])
    model.add_task(2)
    with pytest.raises(ConfigError, match="build it with more `tasks`"):
        model.add_task(2)
    with pytest.raises(ConfigError, match="gates are one for each unit"):
        model.class_block(torch.zeros(1, 1, 8), torch.zeros(1, 4, 8), (torch.ones(8), torch.ones(3)))


def test_what_earlier_tasks_have_learns_no_more_and_new_tasks_add_what_the_paper_says() -> None:
    model = Gcab(GcabConfig(tasks=3, classes=(2, 3), **SMALL))
    assert [p.requires_grad for p in model.tokens] == [False, True]
    assert not model.class_block.norm1.weight.requires_grad and model.class_block.query.weight.requires_grad
    before = sum(p.numel() for p in model.parameters())
    model.add_task(3)
    head, projector = 8 + (16 + 8 * 3 + 3), 2 * (64 + 8) + 2 * 4 * 8
    assert sum(p.numel() for p in model.parameters()) - before == head + projector
    assert model(torch.zeros(2, 1, 4, 4)).shape == (2, 8)


def timm(module: str) -> Any:
    """A module of timm; skips where it is not installed."""
    if not (find_spec("timm") and find_spec("torchvision")):
        pytest.skip("pip install timm torchvision")
    return import_module(f"timm.models.{module}")


@torch.no_grad()
def test_positional_attention_is_timms_with_its_weights() -> None:
    theirs, ours = timm("convit").GPSA(16, num_heads=4).eval(), PositionalAttention(16, 4, 3)
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    query, key = theirs.qk.weight.chunk(2)
    ours.load_state_dict(
        {"query.weight": query, "key.weight": key, "value.weight": theirs.v.weight, "gate": theirs.gating_param,
         "position.weight": theirs.pos_proj.weight, "position.bias": theirs.pos_proj.bias,
         "out.weight": theirs.proj.weight, "out.bias": theirs.proj.bias}
    )  # fmt: skip
    x = torch.randn(2, 9, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_positional_attention_starts_where_timms_does() -> None:
    theirs, ours = timm("convit").GPSA(18, num_heads=9), PositionalAttention(18, 9, 3)
    theirs.local_init()
    assert torch.equal(ours.position.weight, theirs.pos_proj.weight) and torch.equal(ours.gate, theirs.gating_param)
    assert torch.equal(ours.value.weight, theirs.v.weight)


@torch.no_grad()
def test_class_attention_with_open_gates_is_timms_with_its_weights() -> None:
    theirs, ours = timm("cait").ClassAttn(16, num_heads=4).eval(), GatedClassBlock(16, 4, 2)
    torch.manual_seed(0)
    for name, part in (("q", ours.query), ("k", ours.key), ("v", ours.value), ("proj", ours.out)):
        part.weight.copy_(getattr(theirs, name).weight)
    ours.out.bias.copy_(theirs.proj.bias)
    ours.up.weight.zero_()
    ours.up.bias.zero_()
    ours.down.bias.zero_()
    token, x = torch.randn(2, 1, 16), torch.randn(2, 9, 16)
    expected = token + theirs(ours.norm1(torch.cat([token, x], 1)))
    torch.testing.assert_close(ours(token, x), expected, rtol=1e-5, atol=1e-6)
