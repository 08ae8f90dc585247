"""Parts of models are timm's, with its weights, where timm is there: `make parity`."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from outpace.models.layers.class_attention import GatedClassBlock
from outpace.models.ninformer import InnerMixer, NinformerConfig
from outpace.models.svt import GridAttention

TORCHVISION = (
    "", ".datasets", ".datasets.utils", ".models", ".models.feature_extraction", ".ops", ".ops.misc", ".transforms",
    ".transforms.functional",
)  # fmt: skip
"""What timm imports of torchvision and its layers do not use: it is not installed beside a CPU build of torch."""


@pytest.fixture(scope="module")
def timm() -> Any:
    if find_spec("timm") is None:
        pytest.skip("make parity")
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("torchvision") is None:
            for name in TORCHVISION:
                patch.setitem(sys.modules, f"torchvision{name}", MagicMock())
        yield import_module("timm")


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def given(ours: nn.Linear, theirs: nn.Linear) -> None:
    ours.load_state_dict(theirs.state_dict())


@torch.no_grad()
def test_the_inner_mixer_is_timms(timm: Any) -> None:
    block = timm.models.mlp_mixer.MixerBlock(8, 6, mlp_ratio=(1.5, 1.5)).double().eval()
    ours = InnerMixer(6, NinformerConfig(width=8, hidden=12, dropout=0.0)).double()
    ours.norm1.load_state_dict(block.norm1.state_dict())
    ours.norm2.load_state_dict(block.norm2.state_dict())
    ours.norm1.eps = ours.norm2.eps = block.norm1.eps
    for mine, theirs in ((ours.tokens, block.mlp_tokens), (ours.channels, block.mlp_channels)):
        given(mine.up, theirs.fc1)
        given(mine.down, theirs.fc2)
    torch.testing.assert_close(ours(normal(2, 6, 8)), block(normal(2, 6, 8)), rtol=0, atol=1e-12)


@torch.no_grad()
def test_one_token_asks_as_in_cait(timm: Any) -> None:
    """What GCAB's gates stand in, all of them open, and what SVT ends with."""
    attention, x = timm.models.cait.ClassAttn(8, 2).double().eval(), normal(2, 5, 8)
    block = GatedClassBlock(8, 2, 2).double()
    for mine, theirs in zip(
        (block.query, block.key, block.value, block.out),
        (attention.q, attention.k, attention.v, attention.proj),
        strict=True,
    ):
        given(mine, theirs)
    block.down.weight.zero_()
    block.down.bias.zero_()
    expected = x[:, :1] + attention(block.norm1(x))
    torch.testing.assert_close(block(x[:, :1], x[:, 1:]), expected, rtol=0, atol=1e-12)
    grid = GridAttention(8, 2).double()
    given(grid.out, attention.proj)
    grid.query.weight.copy_(attention.q.weight)
    grid.key_value.weight.copy_(torch.cat([attention.k.weight, attention.v.weight]))
    grid.query.bias.zero_()
    grid.key_value.bias.zero_()
    torch.testing.assert_close(grid.between(x[:, :1], x), attention(x), rtol=0, atol=1e-12)
