"""Pictures as tiles: back again at every size, what a function makes of them, and bad inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import ConfigError
from outpace.kernels.tiles import Tiles, in_tiles

quick = settings(max_examples=30, deadline=None, database=None, derandomize=True)


@quick
@given(
    seed=st.integers(0, 99),
    sides=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    shared=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    shift=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    scale=st.integers(1, 3),
)
def test_a_picture_is_what_its_tiles_make_at_every_scale(
    seed: int,
    sides: tuple[int, int],
    more: tuple[int, int],
    shared: tuple[int, int],
    shift: tuple[int, int],
    scale: int,
) -> None:
    size = (sides[0] + more[0], sides[1] + more[1])
    overlap = (min(shared[0], sides[0] - 1), min(shared[1], sides[1] - 1))
    tiles = Tiles(sides=sides, overlap=overlap, shift=shift)
    picture = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parts = tiles.split(picture)
    assert parts.shape == (2 * tiles.count(size), 3, *sides)

    def larger(x: Tensor) -> Tensor:
        return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    torch.testing.assert_close(tiles.join(larger(parts), size, scale=scale), larger(picture))
    torch.testing.assert_close(in_tiles(larger, picture, tiles, at_once=3), larger(picture))


def test_a_function_that_sees_little_is_exact_away_from_the_borders_of_tiles() -> None:
    picture = torch.randn(1, 2, 40, 24, dtype=torch.float64)
    weight = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    tiles = Tiles(sides=(16, 12))
    apart = (
        in_tiles(lambda x: F.conv2d(x, weight, padding=1), picture, tiles) - F.conv2d(picture, weight, padding=1)
    ).abs()
    assert apart[..., 1:15, 1:11].max() < 1e-12 < apart[..., 15:17, :].max()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: Tiles(sides=(4, 4), overlap=(0, 4)), "cannot overlap"),
        (lambda: Tiles(sides=(0, 4)), "cannot overlap"),
        (lambda: Tiles(sides=(4, 4)).split(torch.zeros(1, 1, 3, 9)), "smaller than a tile"),
        (lambda: Tiles(sides=(4, 4)).split(torch.zeros(1, 8, 8)), "batch, channels, rows, columns"),
        (lambda: Tiles(sides=(4, 4)).join(torch.zeros(4, 1, 5, 5), (8, 8)), r"has 4 tiles of \(4, 4\)"),
        (lambda: Tiles(sides=(4, 4)).join(torch.zeros(3, 1, 4, 4), (8, 8)), "has 4 tiles"),
        (lambda: in_tiles(lambda x: x[..., 1:], torch.zeros(1, 1, 8, 8), Tiles(sides=(4, 4))), "has 4 tiles"),
    ],
)
def test_bad_inputs_end_in_one_error(made: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        made()
