"""What is remembered of BCT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..bct import BlockwiseConfig, blockwise, compression
from ..numbers import numbers
from ..remember import case, filled


@case("bct", "an encoder in codes: norms before and after, few bits, other blocks; how much smaller it is")
@torch.no_grad()
def encoders() -> list[object]:
    made: list[object] = []
    configs = (BlockwiseConfig(), BlockwiseConfig(weight_bits=4, input_bits=6, block=8), BlockwiseConfig(block=None))
    for norm_first in (False, True):
        layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True, norm_first=norm_first)
        encoder = filled(nn.TransformerEncoder(layer, 2, nn.LayerNorm(16, eps=1e-4), enable_nested_tensor=False))
        for config in configs:
            small = blockwise(encoder, config)
            made += [small(numbers((2, 7, 16))), compression(small), compression(small, scale_bits=4)]
    return made


@case("bct", "one layer's parts")
@torch.no_grad()
def parts() -> list[Tensor]:
    layer = filled(nn.TransformerEncoderLayer(16, 4, 24, activation="gelu", batch_first=True))
    small: Any = blockwise(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), BlockwiseConfig(block=4))[0]
    x = numbers((2, 5, 16))
    return [small.attend(x), small.feed_forward(x), small.norm1(x)]
