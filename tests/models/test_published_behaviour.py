"""What published code does and was once missed here: sizes of pictures, tiles, first weights, number types."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from outpace.models.dlgsanet import ChannelAttention, DlgsanetConfig, spread
from outpace.models.gcab import Gcab, GcabConfig
from outpace.models.maxim import Maxim, MaximConfig
from outpace.models.svt import Svt, SvtConfig


def test_maxim_takes_every_smaller_picture_from_the_full_one() -> None:
    """`jax.image.resize(x, (H / 4, W / 4), "nearest")` reads rows 2, 6, 10, not those of the half-sized picture."""
    model = Maxim(MaximConfig(features=4, stages=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # what comes out is then what went in
        x = torch.arange(64.0 * 128).view(1, 1, 64, 128).expand(1, 3, -1, -1)
        pictures = model.pictures(x)[0]
    for level, made in enumerate(pictures):
        step = 2**level
        nearest = [math.floor((i + 0.5) * step) for i in range(64 // step)]
        columns = [math.floor((i + 0.5) * step) for i in range(128 // step)]
        assert torch.equal(made, x[:, :, nearest][:, :, :, columns])


def tiles_one_by_one(part: ChannelAttention, mixed: Tensor, tile: int) -> Tensor:
    """The published loop: on from the last tile by an even step, back at the border, means where tiles overlap."""
    rows, columns = mixed.shape[2:]
    high, wide = min(tile, rows), min(tile, columns)
    down = high if rows <= high else math.ceil((rows - high) / (math.ceil(rows / high) - 1))
    across = wide if columns <= wide else math.ceil((columns - wide) / (math.ceil(columns / wide) - 1))
    total, count = torch.zeros(len(mixed), mixed.shape[1] // 3, rows, columns), torch.zeros(rows, columns)
    top = 0
    while top < rows:
        first, left = min(top, rows - high), 0
        while left < columns:
            start = min(left, columns - wide)
            here = (slice(first, first + high), slice(start, start + wide))
            total[:, :, here[0], here[1]] += part.attend(mixed[:, :, here[0], here[1]])
            count[here] += 1
            if start + wide == columns:
                break
            left += across
        if first + high == rows:
            break
        top += down
    return total / count


@pytest.mark.parametrize(("rows", "columns", "tile"), [(11, 7, 5), (8, 8, 4), (9, 13, 6), (5, 5, 9), (10, 4, 4)])
@torch.no_grad()
def test_tiles_of_dlgsanet_are_the_published_ones(rows: int, columns: int, tile: int) -> None:
    torch.manual_seed(0)
    part = ChannelAttention(DlgsanetConfig(width=12, heads=2, filter_channels=3))
    mixed = torch.randn(2, 36, rows, columns)
    torch.testing.assert_close(part.in_tiles(mixed, tile), tiles_one_by_one(part, mixed, tile))


def test_tiles_that_divide_lie_beside_each_other() -> None:
    assert spread(12, 4) == [0, 4, 8] and spread(13, 5) == [0, 4, 8] and spread(96, 96) == [0]


def test_heads_of_gcab_without_a_place_begin_with_small_numbers() -> None:
    torch.manual_seed(0)
    attention = Gcab(GcabConfig()).blocks[0].attention
    weight, bias = attention.position.weight, attention.position.bias
    assert [row.tolist() for row in weight[:9, 2]] == [-1.0] * 9 and bool((bias == 0).all())
    middle = weight[4].tolist()
    assert middle == [0.0, 0.0, -1.0]
    # normal of deviation 0.02, cut at 2; a Linear of 3 inputs draws up to 0.58
    assert 0 < float(weight[9:].detach().abs().max()) < 0.1
    assert 0.015 < float(attention.query.weight.detach().std()) < 0.025


@pytest.mark.parametrize(
    "dtype", [torch.float16, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (torch.float64, torch.bfloat16))]
)
@torch.no_grad()
def test_svt_and_maxim_take_other_types(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    sizes = {"widths": (8, 16), "depths": (1, 1), "heads": (2, 2), "expansions": (2, 2), "stem": 4, "scattered": 1}
    svt, maxim = (
        Svt(SvtConfig(**sizes, parts=2, picture=48, classes=5)).eval(),
        Maxim(MaximConfig(features=4, stages=2)),
    )
    for model, x in ((svt, torch.rand(2, 3, 48, 48)), (maxim, torch.rand(1, 3, 64, 64))):
        expected = model(x)
        found = model.to(dtype)(x.to(dtype))
        assert found.dtype == dtype
        scale = float(expected.abs().max())
        near = {torch.float64: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
        assert float((found.double() - expected.double()).abs().max()) <= near * scale
