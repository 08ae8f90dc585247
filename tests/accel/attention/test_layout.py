"""Where tokens lie, and the order in which blocks visit them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from larger import PLACES, Place, adaspa, larger
from tiny import TinyPipeline, noise, texts
from tiny_models import rectangle
from torch import Tensor

from outpace.accel import accelerate, find_family
from outpace.accel.attention.engine import AttentionEngine
from outpace.accel.attention.layout import Layout, make_layout, tile_order, token_grid

CPU = torch.device("cpu")
SIZES = (16, 32, 64, 128)
MIXED_BEFORE_THE_BLOCKS = {"ZImageTransformer2DModel", "Lumina2Transformer2DModel"}
"""Their refiners let the picture's tokens see each other before the first block."""


def layout_of(tokens: int, block: int | tuple[int, int] = 16, **changes: Any) -> Layout:
    given: dict[str, Any] = {"grid": None, "picture": None, "text": "start", "tile": True, "padding": None}
    return make_layout(tokens, block, **{**given, **changes}, device=CPU)


def visited(layout: Layout, tokens: int) -> Tensor:
    return torch.arange(tokens) if layout.order is None else layout.order


def blocks_with(marked: Tensor, block: int) -> Tensor:
    """bool (blocks): those that hold a marked token."""
    rest = -len(marked) % block
    return torch.nn.functional.pad(marked, (0, rest)).view(-1, block).any(1)


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 11), st.integers(1, 13)), st.sampled_from(SIZES))
def test_tiles_visit_every_token_once(grid: tuple[int, int, int], block: int) -> None:
    order = tile_order(grid, block)
    assert torch.equal(order.sort().values, torch.arange(math.prod(grid)))


@pytest.mark.parametrize("grid", [(16, 32, 16), (1, 32, 32)], ids=["video", "picture"])
def test_a_block_of_128_queries_is_two_blocks_of_keys_in_one_place(grid: tuple[int, int, int]) -> None:
    """Text is kept by blocks of either kind; a block of keys is a thinner tile of the queries' tile."""
    tokens = math.prod(grid) + 70
    layout = layout_of(tokens, (128, 64), grid=grid, text="end")
    assert layout.always.shape == (-(-tokens // 128), -(-tokens // 64))
    text = torch.zeros(tokens, dtype=torch.bool)
    text[-70:] = True
    rows, columns = (blocks_with(text[visited(layout, tokens)], block) for block in (128, 64))
    assert torch.equal(layout.always, rows[:, None] | columns[None, :])
    order = visited(layout, tokens)[: math.prod(grid)].view(-1, 64)
    place = (order // (grid[1] * grid[2]), order // grid[2] % grid[1], order % grid[2])
    spans = [tuple(sorted(int(axis[block].max() - axis[block].min() + 1) for axis in place)) for block in (0, 1, 5)]
    assert set(spans) == ({(4, 4, 4)} if grid[0] > 1 else {(1, 8, 8)})


@pytest.mark.parametrize("block", SIZES)
@pytest.mark.parametrize("frames", [1, 16])
def test_full_tiles_are_blocks(block: int, frames: int) -> None:
    sides = {16: (4, 2, 2), 32: (4, 4, 2), 64: (4, 4, 4), 128: (8, 4, 4)}[block]
    if frames == 1:
        sides = {16: (1, 4, 4), 32: (1, 8, 4), 64: (1, 8, 8), 128: (1, 16, 8)}[block]
    assert math.prod(sides) == block
    grid = (frames, 32, 16)
    order = tile_order(grid, block).view(-1, block)
    t, y, x = order // (32 * 16), order // 16 % 32, order % 16
    for axis, side in zip((t, y, x), sides, strict=True):
        assert (axis.amax(1) - axis.amin(1) == side - 1).all()
        assert (axis.amin(1) % side == 0).all()


def test_a_ragged_grid_keeps_its_full_tiles_whole() -> None:
    grid = (5, 6, 7)
    order = tile_order(grid, 64).tolist()
    tile = {(t * 6 + y) * 7 + x for t in range(4) for y in range(4) for x in range(4)}
    assert set(order[:64]) == tile
    # The thinner tiles beside it follow one after the other.
    beside = {(t * 6 + y) * 7 + x for t in range(4) for y in range(4) for x in range(4, 7)}
    assert set(order[64 : 64 + len(beside)]) == beside


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, dict[str, Any]]:
    """Tokens, and where they lie."""
    grid = draw(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)))
    picture, words = math.prod(grid), draw(st.integers(0, 20))
    tokens = picture + words
    padding = None
    if draw(st.booleans()):
        padding = torch.zeros(tokens, dtype=torch.bool)
        padding[draw(st.lists(st.integers(0, tokens - 1), max_size=tokens // 2))] = True
    known = draw(st.booleans())
    return tokens, {
        "grid": grid if known else None,
        "picture": picture if words else None,
        "text": draw(st.sampled_from(["start", "end"])),
        "tile": draw(st.booleans()),
        "padding": padding,
    }


@settings(max_examples=50, deadline=None)
@given(layouts(), st.sampled_from([16, 32]))
def test_visiting_is_undone(case: tuple[int, dict[str, Any]], block: int) -> None:
    tokens, given = case
    layout = layout_of(tokens, block, **given)
    x = torch.arange(2 * 3 * tokens * 2.0).view(2, 3, tokens, 2)
    assert torch.equal(layout.undo(layout.visit(x)), x)
    order = visited(layout, tokens)
    assert torch.equal(order.sort().values, torch.arange(tokens))
    assert torch.equal(layout.visit(x), x[:, :, order])
    if given["padding"] is not None:
        hidden = given["padding"][order]
        assert not (hidden[:-1] & ~hidden[1:]).any(), "what is hidden is visited last"


@settings(max_examples=50, deadline=None)
@given(layouts(), st.sampled_from([16, 32]))
def test_text_is_always_kept_and_nothing_else_is(case: tuple[int, dict[str, Any]], block: int) -> None:
    tokens, given = case
    given["padding"] = None
    layout = layout_of(tokens, block, **given)
    picture = given["picture"] or tokens
    text = torch.ones(tokens, dtype=torch.bool)
    first = tokens - picture if given["text"] == "start" else 0
    text[first : first + picture] = False
    holds = blocks_with(text[visited(layout, tokens)], block)
    assert torch.equal(layout.always, holds[:, None] | holds[None, :])


def test_padding_of_the_text_is_not_kept() -> None:
    # 32 tokens of a picture, then 32 of text, of which the last 20 stand for nothing.
    padding = torch.arange(64) >= 44
    layout = layout_of(64, grid=(1, 4, 8), picture=32, text="end", padding=padding)
    assert layout.always[-1].tolist() == [False, False, True, False]


def test_a_shorter_text_leaves_its_padding_behind_the_picture() -> None:
    # As Lumina 2 packs it beside a longer one: 3 of text, 16 of the picture, 2 of padding.
    layout = layout_of(21, grid=(1, 4, 4), picture=16, text="start", padding=torch.arange(21) >= 19)
    order = visited(layout, 21)
    assert sorted(order[:16].tolist()) == list(range(3, 19)), "the picture fills its tile"
    assert order[16:].tolist() == [0, 1, 2, 19, 20]


def test_padding_inside_the_text_is_visited_last() -> None:
    padding = torch.zeros(21, dtype=torch.bool)
    padding[3:5] = True
    order = visited(layout_of(21, grid=(1, 4, 4), picture=16, text="start", padding=padding), 21)
    assert sorted(order[:16].tolist()) == list(range(5, 21))
    assert order[16:].tolist() == [0, 1, 2, 3, 4]


def test_the_order_of_the_model_costs_nothing() -> None:
    layout = layout_of(37, grid=(2, 4, 4), picture=32, text="end", tile=False)
    assert layout.order is None
    x = torch.zeros(1, 1, 37, 1)
    assert layout.visit(x) is x
    assert layout.undo(x) is x


def test_a_grid_that_does_not_account_for_the_picture_is_not_tiled() -> None:
    assert layout_of(40, grid=(2, 4, 4), picture=36, text="end").order is None


def seen_by_the_first_layer(
    pipe: TinyPipeline, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Layout]:
    """The queries (N, H, D) of the first layer that is made sparse, and how it lays them out."""
    seen: list[tuple[Tensor, Layout]] = []
    lay_out = AttentionEngine._layout

    def observe(self: AttentionEngine, current: Any, layer: Any, q: Tensor, hidden: Any) -> Layout:
        layout = lay_out(self, current, layer, q, hidden)
        seen.append((q[0].transpose(0, 1).clone(), layout))
        return layout

    monkeypatch.setattr(AttentionEngine, "_layout", observe)
    with accelerate(pipe, adaspa(recall=0.9, searches=(0.0,))):
        pipe.scheduler.set_timesteps(4)
        pipe.model.call(pipe.transformer, latents, pipe.scheduler.timesteps[:1].float(), texts([0]))
    monkeypatch.undo()
    return seen[0]


def with_cell_changed(latents: Tensor, place: Place, cell: tuple[int, int, int]) -> Tensor:
    """Other values in what becomes one token."""
    latents, (t, y, x) = latents.clone(), cell
    _, height, width = place.grid
    if latents.ndim == 3:
        latents[:, (t * height + y) * width + x] += 1.0
    elif latents.ndim == 4:
        latents[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] += torch.rand(2, 2)
    else:
        latents[:, :, t, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] += torch.rand(2, 2)
    return latents


@pytest.mark.parametrize("cls", list(PLACES))
def test_tokens_lie_where_the_family_says(cls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change what becomes one token, and see which token changes."""
    place = PLACES[cls]
    frames, height, width = place.grid
    pipe = TinyPipeline(larger(cls))
    latents = noise(pipe.model, [0])
    queries, layout = seen_by_the_first_layer(pipe, latents, monkeypatch)
    tokens = place.history + place.picture + place.words
    assert len(queries) == tokens
    for cell in [(0, 0, 0), (frames - 1, 2, width - 1), (frames // 2, height - 1, 1)]:
        changed, _ = seen_by_the_first_layer(pipe, with_cell_changed(latents, place, cell), monkeypatch)
        found = (changed - queries).abs().amax((1, 2)).nonzero().flatten().tolist()
        if cls in MIXED_BEFORE_THE_BLOCKS:
            assert set(found) == set(range(place.first, place.first + place.picture))
        else:
            t, y, x = cell
            assert found == [place.first + (t * height + y) * width + x]
    order = visited(layout, tokens)
    if place.history == 0:
        assert torch.equal(order[: place.picture] - place.first, tile_order(place.grid, 16)), "tile by tile"
    beside = torch.ones(tokens, dtype=torch.bool)
    beside[place.first - place.history : place.first + place.picture] = False
    kept = blocks_with(beside[order], 16)
    assert torch.equal(layout.always, kept[:, None] | kept[None, :])


@pytest.mark.parametrize("pictures", [1, 2, 3, 4])
def test_references_beside_the_picture_are_no_grid(pictures: int) -> None:
    """Qwen-Image-Edit-Plus lays the picture and its references into one row of tokens, and lists their shapes."""
    pipe = TinyPipeline("QwenImageTransformer2DModel")
    x = noise(pipe.model, [0])
    sides = [(1, *rectangle(x.shape[1]))] * pictures
    model, text = pipe.transformer, texts([0])
    call: dict[str, Any] = {"hidden_states": torch.cat([x] * pictures, 1), "img_shapes": [sides]}
    assert token_grid(model, find_family(model), call) == (sides[0] if pictures == 1 else None)
    with accelerate(model, adaspa(sparsity=0.5)) as run:
        for t in (0.9, 0.5, 0.1):
            model(
                **call,
                encoder_hidden_states=text,
                encoder_hidden_states_mask=torch.ones(text.shape[:2]),
                timestep=torch.tensor([t]),
            )
    assert run.trace.attention.searches
