"""Layouts: what they mean, how units are dealt, and what is said where they do not fit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from outpace.accel.experts import Layout
from outpace.errors import ConfigError


def test_the_paper_s_layout_uses_three_eighths() -> None:
    layout = Layout.parse("1s12e2a")
    assert (layout, str(layout), layout.fraction) == (Layout(), "1S12E2A", 0.375)
    assert layout.widths(12288) == (3072, 768)
    assert Layout.parse("0S8E1A").fraction == 0.125 and Layout.parse("2S4E4A").fraction == 1.0


@given(
    shared=some.integers(0, 3),
    experts=some.integers(1, 16),
    each=some.integers(1, 5),
    seed=some.integers(0, 1000),
)
def test_every_unit_is_dealt_once_and_the_best_are_shared(shared: int, experts: int, each: int, seed: int) -> None:
    layout = Layout(shared=shared, experts=experts, active=0)
    hidden = 4 * experts * each
    order = torch.randperm(hidden, generator=torch.Generator().manual_seed(seed))
    common, routed = layout.deal(order)
    assert torch.cat([common, routed.flatten()]).sort().values.tolist() == list(range(hidden))
    assert common.tolist() == order[: hidden * shared // 4].tolist()
    rest = order[len(common) :]
    for expert, units in enumerate(routed):
        assert units.tolist() == rest[expert::experts].tolist()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1S12E", "'1S12E' is no layout; write 1S12E2A"),
        ("4S12E2A", "0 to 3 shared experts"),
        ("1S0E0A", "at least one routed expert"),
        ("1S12E13A", "13 of 12 experts cannot be active; choose 0 to 12"),
    ],
)
def test_what_is_no_layout_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Layout.parse(text)


def test_units_that_do_not_divide_are_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match=r"64 hidden units do not divide into 1S10E2A.*; 1S8E2A would"):
        Layout.parse("1S10E2A").widths(64)
    with pytest.raises(ConfigError, match=r"42 hidden units do not divide.*try another, such as 0S"):
        Layout.parse("1S12E2A").widths(42)
    with pytest.raises(ConfigError, match="names each of 0 to 47 once"):
        Layout.parse("1S12E2A").deal(torch.zeros(48, dtype=torch.long))
