"""Attention inside boxes equals attention over everything under a mask, whatever the grid."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention

from outpace.errors import ConfigError
from outpace.kernels.attention.windows import into_windows
from outpace.pipelines.boxes import BoxAttention, ReducedAttention

CASES = [
    ((3, 4, 4), (1, 0, 0)),
    ((3, 4, 4), (0, 1, 1)),
    ((4, 4, 4), (2, 2, 2)),
    ((3, 5, 4), (2, 2, 3)),
    ((2, 2, 2), (9, 9, 9)),
]
every_case = pytest.mark.parametrize(("grid", "box"), CASES, ids=str)


def attention(width: int = 12) -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=width, heads=2, dim_head=width // 2, bias=True).eval().requires_grad_(False)


def box_numbers(grid: tuple[int, int, int], box: tuple[int, int, int]) -> torch.Tensor:
    """The box of each token, from its place."""
    places = torch.cartesian_prod(*[torch.arange(length) for length in grid])
    sides = torch.tensor([side or length for side, length in zip(box, grid, strict=True)])
    return (places // sides) @ torch.tensor([10_000, 100, 1])


@every_case
def test_attention_in_boxes_equals_masked_attention(grid, box):
    layer, tokens = attention(), torch.randn(2, grid[0] * grid[1] * grid[2], 12)
    numbers = box_numbers(grid, box)
    same = numbers[:, None] == numbers[None]
    q, k, v = (part(tokens).unflatten(2, (2, 6)).transpose(1, 2) for part in (layer.to_q, layer.to_k, layer.to_v))
    scores = (q @ k.transpose(2, 3) / 6**0.5).masked_fill(~same, float("-inf"))
    masked = layer.to_out[0]((scores.softmax(3) @ v).transpose(1, 2).flatten(2))
    layer.set_processor(BoxAttention(box))
    assert (layer(tokens, grid=grid) - masked).abs().max() < 1e-5


def test_one_box_is_the_attention_of_diffusers():
    layer, tokens = attention(), torch.randn(3, 24, 12)
    plain = layer(tokens)
    for box in ((0, 0, 0), (2, 3, 4)):
        layer.set_processor(BoxAttention(box))
        assert (layer(tokens, grid=(2, 3, 4)) - plain).abs().max() < 1e-5


def test_reduced_attention_is_plain_at_side_1_and_sees_means_at_first():
    layer, tokens = attention(), torch.randn(2, 64, 12)
    plain = layer(tokens)
    layer.set_processor(ReducedAttention(12, 1))
    assert (layer(tokens, grid=(4, 4, 4)) - plain).abs().max() < 1e-5
    layer.set_processor(ReducedAttention(12, 2))
    means = into_windows(tokens.unflatten(1, (4, 4, 4)), (2, 2, 2)).mean(2)
    expected = attention()(tokens, encoder_hidden_states=means)
    assert (layer(tokens, grid=(4, 4, 4)) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("box", [(1, 1), (0, -1, 0)])
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(ConfigError, match="three sizes"):
        BoxAttention(box)
