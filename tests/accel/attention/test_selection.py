"""What a selection promises, on random masses: targets reached, with no block too many, and text always kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.accel.attention.selection import (
    ERROR_STARTS_AT,
    largest,
    measured,
    prefix_rows,
    recall_for,
    recall_for_error,
    row_shares,
    select,
)
from outpace.accel.methods.adaspa import AdaSpa

TOLERANCE = 1e-6
property_based = settings(max_examples=25, deadline=None)


@st.composite
def masses(draw: st.DrawFn) -> Tensor:
    """(B, H, R, C) in float32, as the kernels give it: flat, peaked, with ties, and with blocks that hold nothing."""
    batch, heads, rows, columns = (draw(st.integers(1, most)) for most in (2, 5, 6, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    sharpness = draw(st.sampled_from([0.0, 0.1, 1.0, 3.0, 12.0]))
    mass = (sharpness * torch.randn(batch, heads, rows, columns, generator=generator)).softmax(-1)
    if draw(st.booleans()):
        mass = mass * (torch.rand(mass.shape, generator=generator) < 0.7)
    return 64 * mass


@st.composite
def masses_with_text(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """A mass and the blocks of text, (R, C): the first, the last or none."""
    mass = draw(masses())
    always = torch.zeros(mass.shape[2:], dtype=torch.bool)
    place = draw(st.sampled_from([None, 0, -1]))
    if place is not None:
        always[place] = True
        always[:, place] = True
    return mass, always


def no_text(mass: Tensor) -> Tensor:
    return torch.zeros(mass.shape[2:], dtype=torch.bool)


def in_float64(mass: Tensor) -> Tensor:
    """Shares worked out here, without the code under test."""
    mass = mass.double()
    total = mass.sum(-1, keepdim=True)
    return torch.where(total > 0, mass / total, torch.full_like(mass, 1 / mass.shape[-1]))


def without_least(share: Tensor, keep: Tensor, optional: Tensor) -> Tensor:
    """`keep` without the smallest block of every row that is `optional`."""
    last = share.masked_fill(~(keep & optional), math.inf).argmin(-1, keepdim=True)
    return keep & ~torch.zeros_like(keep).scatter_(-1, last, True)


@property_based
@given(masses_with_text(), st.floats(0.01, 0.999))
def test_every_row_reaches_its_recall_with_the_fewest_blocks(case: tuple[Tensor, Tensor], recall: float) -> None:
    mass, always = case
    share = in_float64(mass)
    found = select(mass, AdaSpa(recall=recall), always)
    dropped = (share * ~found.keep).sum(-1)
    assert dropped.max() <= 1 - recall + TOLERANCE
    optional = found.keep & ~always
    fewer = without_least(share, found.keep, ~always)
    held = (share * fewer).sum(-1)
    # A row of one block, or of text only, has none to give.
    tight = optional.any(-1) & (found.keep.sum(-1) > 1)
    assert (held < recall + TOLERANCE)[tight].all()


@property_based
@given(masses_with_text(), st.floats(0.01, 0.99))
def test_what_is_reported_is_what_is_kept(case: tuple[Tensor, Tensor], recall: float) -> None:
    mass, always = case
    share = in_float64(mass)
    for method in (AdaSpa(recall=recall), AdaSpa(recall=recall, per="head"), AdaSpa(sparsity=0.99 * recall)):
        found = select(mass, method, always)
        rows = (share * found.keep).sum(-1)
        assert torch.allclose(found.recall, rows.mean(-1), atol=1e-9)
        assert torch.allclose(found.least_recall, rows.amin(-1), atol=1e-9)
        assert torch.allclose(found.density, found.keep.double().mean((2, 3)))
        assert found.keep[..., always].all()
        assert found.keep.any(-1).all(), "a row without a block has no output"


@property_based
@given(masses_with_text())
def test_recall_one_keeps_everything(case: tuple[Tensor, Tensor]) -> None:
    mass, always = case
    for method in (AdaSpa(recall=1.0), AdaSpa(recall=1.0, per="head"), AdaSpa(sparsity=0.0), AdaSpa(density=1.0)):
        assert select(mass, method, always).keep.all() or method.target.name == "density"
    # A density of 1 affords every block that holds anything.
    assert select(mass, AdaSpa(density=1.0), always).least_recall.min() >= 1 - TOLERANCE


@property_based
@given(masses_with_text(), st.floats(0.01, 0.99))
def test_a_head_on_average_takes_no_more_than_row_by_row(case: tuple[Tensor, Tensor], recall: float) -> None:
    mass, always = case
    by_row = select(mass, AdaSpa(recall=recall), always)
    by_head = select(mass, AdaSpa(recall=recall, per="head"), always)
    assert by_head.recall.min() >= recall - TOLERANCE
    assert (by_head.keep.sum((2, 3)) <= by_row.keep.sum((2, 3))).all()


def test_a_head_on_average_lets_rows_fall_below() -> None:
    mass = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]])[None, None]
    by_row = select(mass, AdaSpa(recall=0.7), no_text(mass))
    by_head = select(mass, AdaSpa(recall=0.7, per="head"), no_text(mass))
    assert by_row.keep.sum((-2, -1)).item() == 1 + 3
    assert by_head.keep.sum((-2, -1)).item() == 1 + 2
    assert by_head.least_recall.item() == pytest.approx(0.5)


@property_based
@given(masses_with_text(), st.floats(0.05, 0.95), st.floats(0.0, 1.0), st.floats(0.05, 1.0))
def test_hybrid_stays_between_least_and_most(
    case: tuple[Tensor, Tensor], recall: float, least: float, most: float
) -> None:
    mass, always = case
    least = min(least, most)
    plain = select(mass, AdaSpa(recall=recall), always).keep
    keep = select(mass, AdaSpa(recall=recall, least=least, most=most), always).keep
    columns = mass.shape[-1]
    high = max(1, math.floor(most * columns))
    low = min(math.ceil(least * columns), high)
    count = keep.sum(-1)
    assert (count >= low).all()
    assert (count <= always.sum(-1).clamp_min(high)).all(), "text is kept beyond the most, and nothing else"
    inside = (plain.sum(-1) >= low) & (plain.sum(-1) <= high)
    assert torch.equal(keep[inside], plain[inside])


@property_based
@given(masses_with_text(), st.floats(0.02, 1.0))
def test_a_budget_is_met_and_buys_the_largest_least_recall(case: tuple[Tensor, Tensor], density: float) -> None:
    mass, always = case
    share = in_float64(mass)
    found = select(mass, AdaSpa(density=density), always)
    cells = mass.shape[1] * mass.shape[2] * mass.shape[3]
    forced = mass.shape[1] * always.sum(-1).clamp_min(1).sum()
    kept = found.keep.sum((1, 2, 3))
    assert (kept <= max(density * cells, forced) + TOLERANCE).all()
    for sample in range(len(mass)):
        # No higher recall is affordable: the next that any row could be at costs more than the budget.
        least = found.least_recall[sample].min()
        if kept[sample] > forced and least < 1 - TOLERANCE:
            higher = prefix_rows(share[sample : sample + 1], float(least) + TOLERANCE, always)
            assert higher.sum() > density * cells - TOLERANCE


@property_based
@given(masses(), st.floats(0.1, 0.9))
def test_a_budget_buys_more_for_the_least_than_an_even_split(mass: Tensor, sparsity: float) -> None:
    share = row_shares(mass)
    even = measured(share, largest(share, sparsity))
    for sample in range(len(mass)):
        one = mass[sample : sample + 1]
        bought = select(one, AdaSpa(density=float(even.density[sample].mean())), no_text(mass))
        assert bought.least_recall.min() >= even.least_recall[sample].min() - TOLERANCE


@property_based
@given(masses_with_text(), st.floats(0.05, 0.95), st.sampled_from(["recall", "sparsity", "density"]))
def test_a_sample_is_selected_for_alone(case: tuple[Tensor, Tensor], value: float, target: str) -> None:
    mass, always = case
    settings: dict[str, Any] = {target: value}
    together = select(mass, AdaSpa(**settings), always)
    for sample in range(len(mass)):
        alone = select(mass[sample : sample + 1], AdaSpa(**settings), always)
        assert torch.equal(alone.keep[0], together.keep[sample])


@property_based
@given(masses(), st.floats(0.0, 0.99))
def test_a_sparsity_is_an_exact_count_in_every_row(mass: Tensor, sparsity: float) -> None:
    columns = mass.shape[-1]
    found = select(mass, AdaSpa(sparsity=sparsity, head_adaptive=False), no_text(mass))
    count = max(1, math.floor((1 - sparsity) * columns + 0.5))
    assert (found.keep.sum(-1) == count).all()
    # None that was dropped holds more than one that was kept.
    share = in_float64(mass)
    least_kept = share.masked_fill(~found.keep, math.inf).amin(-1)
    most_dropped = share.masked_fill(found.keep, -math.inf).amax(-1)
    assert (least_kept >= most_dropped).all()


def heads_of(recalls: list[float], columns: int, kept: int, rows: int = 4) -> Tensor:
    """A mass whose head h has `recalls[h]` in its `kept` largest blocks."""
    mass = torch.empty(1, len(recalls), rows, columns)
    for head, recall in enumerate(recalls):
        mass[0, head, :, :kept] = recall / kept
        mass[0, head, :, kept:] = (1 - recall) / (columns - kept)
    return mass


def test_the_papers_three_levels() -> None:
    # At sparsity 0.8, 40 blocks: 8 at the base, 4 at (1 + 0.8) / 2 = 0.9, 12 at (3 * 0.8 - 1) / 2 = 0.7.
    mass = heads_of([0.95, 0.5, 0.85, 0.3, 0.7, 0.6], columns=40, kept=8)
    found = select(mass, AdaSpa(sparsity=0.8), no_text(mass))
    assert found.keep.sum(-1)[0, :, 0].tolist() == [4, 12, 4, 12, 8, 8]
    assert (found.keep.sum(-1) == found.keep.sum(-1)[..., :1]).all(), "all rows of a head keep the same number"
    assert found.density.mean().item() == pytest.approx(0.2)


def test_at_most_half_of_the_heads_give() -> None:
    mass = heads_of([0.95, 0.94, 0.93, 0.92, 0.91], columns=40, kept=8)
    found = select(mass, AdaSpa(sparsity=0.8), no_text(mass))
    assert found.keep.sum(-1)[0, :, 0].tolist() == [4, 4, 8, 12, 12], "n = min(#recall > 0.8, H // 2) = 2"
    assert found.density.mean().item() == pytest.approx(0.2)


def test_no_head_gives_where_none_is_good() -> None:
    mass = heads_of([0.8, 0.5, 0.2], columns=40, kept=8)
    assert (select(mass, AdaSpa(sparsity=0.8), no_text(mass)).keep.sum(-1) == 8).all(), "0.8 is not above 0.8"


@property_based
@given(masses(), st.sampled_from([0.5, 0.6, 0.8, 0.9]))
def test_three_levels_preserve_the_mean(mass: Tensor, sparsity: float) -> None:
    mass = mass.repeat_interleave(20, -1) / 20  # as many columns as make every level a whole number
    found = select(mass, AdaSpa(sparsity=sparsity), no_text(mass))
    assert torch.allclose(found.density.mean(1), torch.full((len(mass),), 1 - sparsity).double(), atol=1e-9)


def test_a_low_sparsity_has_no_lower_level() -> None:
    mass = heads_of([0.95, 0.94, 0.3, 0.2], columns=40, kept=30)
    assert (select(mass, AdaSpa(sparsity=0.25), no_text(mass)).keep.sum(-1) == 30).all()


def test_rows_that_hold_nothing_are_split_evenly() -> None:
    share = row_shares(torch.zeros(1, 1, 2, 4))
    assert torch.equal(share, torch.full((1, 1, 2, 4), 0.25, dtype=torch.float64))
    found = select(torch.zeros(1, 1, 2, 4), AdaSpa(recall=0.5), torch.zeros(2, 4, dtype=torch.bool))
    assert (found.keep.sum(-1) == 2).all()


def test_a_budget_too_small_for_one_block_a_row_keeps_one() -> None:
    mass = heads_of([0.9, 0.4], columns=40, kept=8)
    found = select(mass, AdaSpa(density=0.001), no_text(mass))
    assert (found.keep.sum(-1) == 1).all()
    assert float(recall_for(row_shares(mass), 0.001, no_text(mass))) < TOLERANCE


def test_heads_within_their_error_stay_as_they_were_tried() -> None:
    recall = torch.tensor([[0.9, 0.85, 0.82]], dtype=torch.float64)
    error = torch.tensor([[0.05, 0.2, 0.0]], dtype=torch.float64)
    needed = recall_for_error(recall, error, 0.1)
    # 1 - (1 - 0.85) * 0.1 / 0.2
    assert needed[0].tolist() == pytest.approx([ERROR_STARTS_AT, 0.925, ERROR_STARTS_AT])


@property_based
@given(masses_with_text(), st.floats(0.001, 2.0), st.integers(0, 2**16))
def test_a_smaller_accepted_error_never_keeps_less(case: tuple[Tensor, Tensor], accepted: float, seed: int) -> None:
    mass, always = case
    method = AdaSpa(error=accepted)
    tried = select(mass, method, always)
    error = torch.rand(tried.recall.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    more = select(mass, method, always, recall=recall_for_error(tried.recall, error, accepted))
    assert (more.keep | ~tried.keep).all(), "what was kept is kept still"
    within = error <= accepted
    assert torch.equal(more.keep[within], tried.keep[within])
    least = recall_for_error(tried.recall, error, accepted)
    assert (more.least_recall >= least - TOLERANCE).all()
