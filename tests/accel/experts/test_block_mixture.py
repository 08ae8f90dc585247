"""Mixtures of blocks: what is not chosen does not run, samples choose for themselves, routers learn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from closeness import assert_same_but_rounding
from dense_models import CONVERTIBLE, build, middle, run
from torch import nn

from outpace.accel import find_family
from outpace.accel.experts import BlockGroup, Conversion, convert, find_groups
from outpace.errors import ConfigError

every_model = pytest.mark.parametrize("cls", CONVERTIBLE)


def counted(model: nn.Module) -> list[int]:
    """How often the blocks' own modules really run, filled as they do: rows of the batch, by block."""
    blocks = [block for _, block in find_family(model).blocks(model)]
    rows = [0] * len(blocks)
    for place, block in enumerate(blocks):
        inner = next(m for n, m in block.named_modules() if n.split(".")[-1] in ("attn", "attn1", "attention"))

        def note(_: nn.Module, args: Any, kwargs: Any, output: Any, place: int = place) -> None:
            rows[place] += len(output[0] if isinstance(output, tuple) else output)

        inner.register_forward_hook(note, with_kwargs=True)
    return rows


@every_model
def test_all_blocks_of_a_group_are_the_dense_model(cls: str) -> None:
    dense = build(cls)
    group = middle(dense, active=2)
    assert torch.equal(run(convert(dense, Conversion(groups=(group,)))), run(dense))


@every_model
def test_blocks_that_are_not_chosen_do_not_run(cls: str) -> None:
    dense = build(cls)
    group = middle(dense)
    model = convert(dense, Conversion(groups=(group,)))
    rows = counted(model)
    run(model)
    chosen = find_groups(model)[0].choice
    assert chosen is not None
    expected = [3] * len(rows)
    expected[group.first : group.first + 2] = chosen.runs_BM.sum(0).tolist()
    assert rows == expected and sum(rows) == 3 * (len(rows) - 1)


def test_a_group_of_which_none_runs_is_left_out() -> None:
    dense = build("DiTTransformer2DModel")
    without = copy.deepcopy(dense)
    del without.transformer_blocks[1:3]
    model = convert(dense, Conversion(groups=(BlockGroup(first=1, size=2, active=0),)))
    assert torch.equal(run(model), run(without))


def test_choices_differ_with_the_noise_once_the_router_listens_to_it() -> None:
    dense = build("FluxTransformer2DModel")
    model = convert(dense, Conversion(groups=(middle(dense),), text_weight=0.0))
    group = find_groups(model)[0]
    with torch.no_grad():
        group.router.conditioning.normal_(generator=torch.Generator().manual_seed(1))
    seen = set()
    for time in range(0, 1000, 50):
        run(model, (0,), time=float(time))
        assert group.choice is not None
        seen.add(int(group.choice.runs_BM[0].int().argmax()))
    assert seen == {0, 1}


def test_the_router_is_trained_through_the_blocks_that_ran() -> None:
    dense = build("SD3Transformer2DModel")
    model = convert(dense, Conversion(groups=(middle(dense),)))
    plain = run(model)
    model.requires_grad_(True)
    with torch.enable_grad():
        output = run(model)
        # With gradients on, attention takes another kernel on some processors.
        assert_same_but_rounding(output, plain)
        output.square().mean().backward()
    for weight in find_groups(model)[0].router.parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 0


def test_a_copy_has_groups_of_its_own() -> None:
    dense = build("WanTransformer3DModel")
    model = convert(dense, Conversion(groups=(middle(dense),)))
    plain, other = run(model), copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert torch.equal(run(model), plain)
    assert find_groups(other)[0].router is other.block_routers[0]
    assert [type(block).__name__ for block in other.blocks] == ["WanTransformerBlock"] * 4


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ((BlockGroup(first=2, size=3, active=1),), "2-4 has to end before the last of 5 blocks"),
        ((BlockGroup(first=1, size=2, active=1),), "1-2 mixes blocks of different kinds"),
    ],
)
def test_groups_that_do_not_fit_a_model_are_refused(groups: tuple[BlockGroup, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        convert(build("FluxTransformer2DModel"), Conversion(groups=groups))


def test_groups_are_read_and_checked() -> None:
    assert BlockGroup.parse("4-7:2") == BlockGroup(first=4, size=4, active=2)
    for text, says in (
        ("4-7", "write 4-7:2"),
        ("0-3:2", "first must be a whole number >= 1"),
        ("4-4:1", "size must be a whole number >= 2"),
        ("4-7:5", "active must be a whole number from 0 to 4"),
    ):
        with pytest.raises(ConfigError, match=says):
            BlockGroup.parse(text)
    with pytest.raises(ConfigError, match="4-7 and 6-9 overlap"):
        Conversion(groups=(BlockGroup.parse("4-7:2"), BlockGroup.parse("6-9:2")))
