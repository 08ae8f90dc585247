"""Static patterns: what they keep by where blocks lie, at the density asked for, and dense where everything is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from larger import larger
from tiny import TinyPipeline

from outpace.accel import METHODS, StaticSparsity, accelerate
from outpace.accel.attention import laid
from outpace.accel.attention.layout import make_layout
from outpace.accel.patterns import PATTERNS, Places
from outpace.errors import ConfigError, UnknownNameError

GRID, BLOCKS = (8, 8, 12), (64, 64)
TOKENS = 8 * 8 * 12
FREE: dict[str, Any] = {"block": 16, "min_tokens": 1, "min_gain": 0.0}
patterns = pytest.mark.parametrize("pattern", list(PATTERNS))


def places() -> Places:
    layout = make_layout(
        TOKENS, BLOCKS, grid=GRID, picture=None, text="start", tile=True, padding=None, device=torch.device("cpu")
    )
    return laid.blocks_of(layout, TOKENS, BLOCKS)


def test_blocks_are_where_their_tiles_are() -> None:
    at = places()
    # Tiles of 4 x 4 x 4: two along time and height, three along width.
    middles = [[t, y, x] for t in (1.5, 5.5) for y in (1.5, 5.5) for x in (1.5, 5.5, 9.5)]
    assert at.queries.tolist() == middles == at.keys.tolist() and at.grid == GRID


@patterns
def test_a_block_is_nearest_to_itself_and_density_is_kept(pattern: str) -> None:
    at = places()
    never = torch.zeros(12, 12, dtype=torch.bool)
    for distance in PATTERNS[pattern].distances:
        assert torch.equal(distance(at).argmin(-1), torch.arange(12)), "nothing is nearer than oneself"
        for density in (0.25, 0.5, 1.0):
            keep = laid.nearest(distance(at), density, never)
            assert (keep.sum(-1) == round(12 * density)).all() and bool(keep.diagonal().all())
        beside = never.clone()
        beside[:, 5] = True
        assert bool(laid.nearest(distance(at), 0.25, beside)[:, 5].all()), "text is kept besides"


def test_what_is_near_is_what_each_paper_says() -> None:
    at = places()
    kept = {
        name: [laid.nearest(d(at), 0.5, torch.zeros(12, 12, dtype=torch.bool))[0] for d in PATTERNS[name].distances]
        for name in PATTERNS
    }
    first, places_of_first = at.keys[:, 0] == 1.5, at.keys[:, 1:].eq(torch.tensor([1.5, 1.5])).all(-1)
    spatial, temporal = kept["spatial-temporal"]
    assert torch.equal(spatial, first), "half of the blocks are those of the own frames"
    assert bool(temporal[places_of_first].all()), "the own place in every frame"
    (tiles,) = kept["sliding-tile"]
    reach = ((at.keys - at.keys[0]).abs() / torch.tensor(GRID)).amax(-1)
    assert reach[tiles].max() <= reach[~tiles].min(), "a window in the video's proportions"
    (radial,) = kept["radial"]
    near = (at.keys - at.keys[0])[:, 1:].norm(dim=-1)
    assert near[radial & ~first].max() < near[radial & first].max(), "less of other times than of its own"


@patterns
def test_everything_kept_is_dense(pattern: str) -> None:
    pipe = TinyPipeline(larger("WanTransformer3DModel"))
    plain = pipe([0, 1], steps=6)
    with accelerate(pipe, StaticSparsity(pattern=pattern, density=1.0, **FREE)) as run:
        assert torch.equal(pipe([0, 1], steps=6), plain) and set(run.trace.attention.calls) == {"dense"}
    # The same through the kernels: a density that rounds to every block, which is not told apart as exact.
    with accelerate(pipe, StaticSparsity(pattern=pattern, density=0.9999, start=0.0, **FREE)) as run:
        made = pipe([0, 1], steps=6)
    assert run.trace.attention.calls["sparse"] == 6 * 4 * 2 and run.trace.attention.totals()["density"] == 1.0
    torch.testing.assert_close(made, plain, rtol=1e-4, atol=1e-5)


@patterns
def test_a_run_keeps_the_density_and_searches_nothing(pattern: str) -> None:
    pipe = TinyPipeline(larger("WanTransformer3DModel"))
    plain = pipe([0, 1], steps=8)
    with accelerate(pipe, StaticSparsity(pattern=pattern, density=0.5, start=0.25, **FREE)) as run:
        made = pipe([0, 1], steps=8)
    totals = run.trace.attention.totals()
    # Where the second of eight steps would search, the pattern is laid down, and the step is sparse already.
    assert totals["calls"] == {"dense": 4 * 2, "sparse": 7 * 4 * 2} and totals["recall"] is None
    assert totals["density"] == pytest.approx(0.5, abs=0.05)
    assert not torch.equal(made, plain) and bool(made.isfinite().all())
    alone = pipe([1], steps=8)
    with accelerate(pipe, StaticSparsity(pattern=pattern, density=0.5, start=0.25, **FREE)):
        torch.testing.assert_close(pipe([1], steps=8), made[1:], rtol=1e-4, atol=1e-5)
    assert not torch.equal(alone, made[1:])


def test_every_head_takes_the_pattern_that_keeps_most_of_it() -> None:
    """Of two heads one looks along time and one within frames, and the mass that is held is the mask's exactly."""
    place = torch.arange(TOKENS)
    t, y, x = place // 96, place // 12 % 8, place % 12
    code = [torch.nn.functional.one_hot(part // 4, 3).float() for part in (t, y, x)]
    q = 12.0 * torch.stack([torch.cat([code[0], 0 * code[1], 0 * code[2]], 1), torch.cat([0 * code[0], *code[1:]], 1)])
    q, k = q[None], torch.cat(code, 1)[None, None].expand(1, 2, -1, -1)
    layout = make_layout(
        TOKENS, BLOCKS, grid=GRID, picture=None, text="start", tile=True, padding=None, device=torch.device("cpu")
    )
    q, k = layout.visit(q), layout.visit(k)
    keep = laid.laid_down(q, k, "spatial-temporal", 1 / 3, layout, BLOCKS, 1.0)
    spatial, temporal = (
        laid.nearest(d(places()), 1 / 3, layout.always) for d in PATTERNS["spatial-temporal"].distances
    )
    assert torch.equal(keep[0, 0], spatial) and torch.equal(keep[0, 1], temporal)
    weights = (q @ k.transpose(2, 3)).softmax(-1)
    by_block = weights.unflatten(3, (12, 64)).sum(-1).unflatten(2, (12, 64))
    exact = (by_block * spatial[:, None]).sum(-1).mean((2, 3))
    assert laid.held(q, k, [spatial], BLOCKS, 1.0)[0] == pytest.approx(exact, abs=0.02)


def test_slips_and_the_way_through_a_file() -> None:
    method = StaticSparsity(pattern="radial", density=0.4, block=(128, 64))
    assert METHODS["static_sparsity"].from_dict(method.to_dict()) == method
    with pytest.raises(UnknownNameError, match="sliding-tile"):
        StaticSparsity(pattern="sliding-tiles")
    for slip in ({"density": 0.0}, {"density": 1.1}, {"start": 1.0}, {"block": 48}, {"tile": 1}):
        with pytest.raises(ConfigError):
            StaticSparsity(**slip)
